"""Training: objectives, configuration, the training step, and the run's folder."""

from importlib import import_module
from typing import TYPE_CHECKING

from depthq.training.config import TRAINING_PRESETS, TrainingConfig
from depthq.training.objectives import Objective, ObjectiveTerms, paper_objective

if TYPE_CHECKING:
    from depthq.training.run import DataConfig, Hardware, RunConfig, default_precision, steps_done, train

__all__ = [
    "TRAINING_PRESETS",
    "DataConfig",
    "Hardware",
    "Objective",
    "ObjectiveTerms",
    "RunConfig",
    "TrainingConfig",
    "default_precision",
    "paper_objective",
    "steps_done",
    "train",
]


def __getattr__(name: str):
    """Names of `depthq.training.run`, which needs Lightning: whoever has a loop of their own does without."""
    if name in __all__:
        return getattr(import_module("depthq.training.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
