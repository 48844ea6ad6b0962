"""The paper's tables and figures, row by row: declared, run, stored and shown."""

from studies.dq_paper.declared import ITEMS, Item, Row, choose_rows, find_item
from studies.dq_paper.experiment import Experiment, Outcome
from studies.dq_paper.probe import expected_seconds
from studies.dq_paper.results import Result, ResultsStore
from studies.dq_paper.runner import ExecutionSettings, Task, distinct, run_tasks, tasks_of
from studies.dq_paper.scales import SCALES, Scale

__all__ = [
    "ITEMS",
    "SCALES",
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
    "expected_seconds",
    "find_item",
    "run_tasks",
    "tasks_of",
]
