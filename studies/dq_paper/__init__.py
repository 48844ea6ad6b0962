"""The paper's tables and figures, row by row: declared, run, stored and shown."""

from studies.dq_paper.declared import ITEMS, Item, Row, choose_rows, find_item
from studies.dq_paper.experiment import Experiment, Outcome
from studies.dq_paper.probe import Effort, expected_effort
from studies.dq_paper.results import Result, ResultsStore
from studies.dq_paper.runner import ExecutionSettings, Task, distinct, run_tasks, tasks_of
from studies.dq_paper.scales import SCALES, Scale

__all__ = [
    "ITEMS",
    "SCALES",
    "Effort",
    "ExecutionSettings",
    "Experiment",
    "Item",
    "Outcome",
    "Result",
    "ResultsStore",
    "Row",
    "Scale",
    "Task",
    "choose_rows",
    "distinct",
    "expected_effort",
    "find_item",
    "run_tasks",
    "tasks_of",
]
