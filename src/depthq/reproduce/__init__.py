"""The paper's tables and figures, row by row: declared, run, stored and shown."""

from depthq.reproduce import fsq  # noqa: F401  its name must be known before a row asks for it
from depthq.reproduce.declared import ITEMS, Item, Row, choose_rows, find_item
from depthq.reproduce.experiment import Experiment, Outcome
from depthq.reproduce.probe import expected_seconds
from depthq.reproduce.results import Result, ResultsStore
from depthq.reproduce.runner import Task, Workplace, distinct, run_tasks, tasks_of
from depthq.reproduce.scales import SCALES, Scale

__all__ = [
    "ITEMS",
    "SCALES",
    "Experiment",
    "Item",
    "Outcome",
    "Result",
    "ResultsStore",
    "Row",
    "Scale",
    "Task",
    "Workplace",
    "choose_rows",
    "distinct",
    "expected_seconds",
    "find_item",
    "run_tasks",
    "tasks_of",
]
