"""Where a run's metrics go: metrics.jsonl always, and what people watch runs with if they ask for it."""

import hashlib
import os
from pathlib import Path

from lightning.pytorch.loggers.logger import Logger

from depthq.extras import is_installed
from depthq.runs import RunFolder
from depthq.training.callbacks import MetricsFile
from depthq.training.checkpoints import newest_checkpoint, step_of

PROJECT = "depthq"
"""Under which project, or experiment, runs are found."""


def make_loggers(folder: Path, name: str | None) -> list[Logger]:
    """The run's own, and the one of that name: Lightning's, which knows its service's environment variables.

    A run that goes on is the same one for TensorBoard and for wandb, a new one of the same name for mlflow.

    Raises:
        ValueError: If its package is not installed.
    """
    checkpoint = newest_checkpoint(RunFolder(folder).checkpoints)
    own = MetricsFile(RunFolder(folder).metrics, first_step=step_of(checkpoint) if checkpoint else 0)
    if name is None:
        return [own]
    needed = (name, "sqlalchemy") if name == "mlflow" else (name,)  # which mlflow-skinny comes without
    if not all(map(is_installed, needed)):
        raise ValueError(f"logger {name} must be installed; it is not; pip install {name}, or leave --logger out")
    return [own, _MAKERS[name](folder)]


def _tensorboard(folder: Path) -> Logger:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


def _wandb(folder: Path) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return WandbLogger(name=folder.name, save_dir=folder, project=PROJECT, id=identity, resume="allow")


def _mlflow(folder: Path) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    return MLFlowLogger(experiment_name=PROJECT, run_name=folder.name, tracking_uri=place)


_MAKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
