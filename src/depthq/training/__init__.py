"""Training: objectives, configuration, the training step, and the run's folder."""

from typing import TYPE_CHECKING

from depthq.lazy import lazy_names
from depthq.training.config import TRAINING_PRESETS, DataConfig, Hardware, RunConfig, TrainingConfig
from depthq.training.objectives import Objective, ObjectiveTerms, paper_objective

if TYPE_CHECKING:
    from depthq.training.run import default_precision, steps_done, train
else:  # a command line is parsed without Lightning
    __getattr__, __dir__ = lazy_names(
        __name__, dict.fromkeys(["default_precision", "steps_done", "train"], "depthq.training.run")
    )

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
