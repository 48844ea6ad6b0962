"""Training: configuration, the training step, and the run's folder."""

from depthq.training.config import TRAINING_PRESETS, TrainingConfig
from depthq.training.run import DataConfig, Hardware, RunConfig, default_precision, steps_done, train

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
