"""Training: configuration, the training step, and the run's folder."""

from typing import TYPE_CHECKING

from depthq.lazy import lazy_names
from depthq.training.config import TRAINING_PRESETS, DataConfig, Hardware, RunConfig, TrainingConfig

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
    "RunConfig",
    "TrainingConfig",
    "default_precision",
    "steps_done",
    "train",
]
