"""What a run leaves behind while it trains: metrics.jsonl, reconstructions/, model/, and a progress bar."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from depthq.evaluation import reconstruction_grid
from depthq.models import DQAE
from depthq.training.module import DQAETraining

GRID_IMAGES = 8


class MetricsFile(Logger):
    """One JSON object per line: {"step": ..., "loss": ..., ...}. Rows of steps that a resumed run repeats are dropped.

    Args:
        path: The metrics.jsonl.
        first_step: Steps already done, by the checkpoint that the run resumes from.
    """

    def __init__(self, path: Path, first_step: int = 0):
        super().__init__()
        self.path = path
        if path.exists():
            rows = [row for row in path.read_text().splitlines() if _step(row) <= first_step]
            path.write_text("".join(row + "\n" for row in rows))

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        """There is no experiment object: rows go straight to the file."""

    @rank_zero_only
    def log_hyperparams(self, params, *args, **kwargs) -> None:
        """The run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        figures = {name: value for name, value in metrics.items() if name != "epoch"}
        if figures:
            row = {"step": (step or 0) + 1, **figures}  # Lightning counts from 0; a row names the steps done
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def _step(row: str) -> float:
    """The step of a row; infinity if a crash cut the row off."""
    try:
        return json.loads(row)["step"]
    except (json.JSONDecodeError, KeyError):
        return float("inf")


class KeepArtefacts(Callback):
    """At every validation: the model as `save_pretrained` writes it, and a grid of originals and reconstructions.

    Args:
        run: The run's folder.
        images: uint8 (B, C, H, W), the images of the grid.
    """

    def __init__(self, run: Path, images: Tensor):
        self.run = run
        self.images = images

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DQAETraining)
        save_model(pl_module.model, self.run / "model")
        grid = reconstruction_grid(pl_module.model, self.images)
        folder = self.run / "reconstructions"
        folder.mkdir(exist_ok=True)
        grid.save(folder / f"step={trainer.global_step:08d}.png")


def save_model(model: DQAE, folder: Path) -> None:
    """`save_pretrained` into `folder`, each file replaced whole."""
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".model-") as partial:
        model.save_pretrained(partial)
        for file in Path(partial).iterdir():
            file.replace(folder / file.name)


class ImagesPerSecond(Callback):
    """Logs the training speed between two rows of the log."""

    def __init__(self, log_every: int):
        self.log_every = log_every
        self.started: float | None = None
        self.images = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch: Tensor, batch_idx: int) -> None:
        self.images += len(batch) * trainer.world_size
        if trainer.global_step % self.log_every == 0:
            now = time.perf_counter()
            if self.started is not None:
                pl_module.log("images_per_second", self.images / (now - self.started), prog_bar=True)
            self.started, self.images = now, 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started, self.images = None, 0  # validation is not training time


class ProgressBar(TQDMProgressBar):
    """Lightning's bar over the steps of the whole run, without its epoch and version numbers."""

    def __init__(self):
        super().__init__(refresh_rate=10)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {name: float(value) if isinstance(value, torch.Tensor) else value for name, value in metrics.items()}
