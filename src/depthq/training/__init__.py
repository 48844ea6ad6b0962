"""Training: objectives, configuration, the training step, and the run's folder."""

from typing import TYPE_CHECKING

from depthq.lazy import lazy_names
from depthq.training.config import (
    TRAINING_PRESETS,
    DataConfig,
    Hardware,
    PriorConfig,
    PriorTrainingConfig,
    RunConfig,
    TrainingConfig,
)
from depthq.training.objectives import Objective, ObjectiveTerms, paper_objective

if TYPE_CHECKING:
    from depthq.training.fitting import default_precision, steps_done
    from depthq.training.health import HealthCallback
    from depthq.training.prior import train_prior
    from depthq.training.run import train
else:  # a command line is parsed without Lightning
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "HealthCallback": "depthq.training.health",
            "default_precision": "depthq.training.fitting",
            "steps_done": "depthq.training.fitting",
            "train": "depthq.training.run",
            "train_prior": "depthq.training.prior",
        },
    )

__all__ = [
    "TRAINING_PRESETS",
    "DataConfig",
    "Hardware",
    "HealthCallback",
    "Objective",
    "ObjectiveTerms",
    "PriorConfig",
    "PriorTrainingConfig",
    "RunConfig",
    "TrainingConfig",
    "default_precision",
    "paper_objective",
    "steps_done",
    "train",
    "train_prior",
]
