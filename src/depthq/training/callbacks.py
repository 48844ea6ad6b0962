"""What a run leaves behind while it trains: metrics.jsonl, reconstructions/, model/, and a progress bar."""

import json
import sys
import time
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from depthq.files import folder_beside, replacing
from depthq.models import DQAE
from depthq.pixels import image_grid
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
        self._drop_rows_behind(first_step)

    @rank_zero_only
    def _drop_rows_behind(self, step: int) -> None:
        if self.path.exists():
            rows = [row for row in self.path.read_text().splitlines() if _step(row) <= step]
            with replacing(self.path) as file:
                file.write("".join(row + "\n" for row in rows).encode())

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
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")


def _step(row: str) -> float:
    """The step of a row; infinity if a crash cut the row off."""
    try:
        return json.loads(row)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


class TrainingRows(Callback):
    """Writes the training step's figures, and the speed since the row before, every so many steps.

    Args:
        every: Steps between rows.
    """

    def __init__(self, every: int):
        self.every = every

    def on_train_start(self, *_) -> None:
        self._restart()

    def on_validation_end(self, *_) -> None:
        self._restart()  # validation is not training time

    def on_train_batch_end(self, trainer, pl_module, outputs, batch: Tensor, batch_idx: int) -> None:
        self.images += len(batch) * trainer.world_size
        if trainer.global_step % self.every == 0:
            assert isinstance(pl_module, DQAETraining)
            pl_module.figures["images_per_second"] = self.images / (time.perf_counter() - self.started)
            write_row(trainer, pl_module.figures)
            self._restart()

    def _restart(self) -> None:
        self.started, self.images = time.perf_counter(), 0


class ValidationRows(Callback):
    """At every validation: a row, the model as `save_pretrained` writes it, a grid, and word of collapsed codebooks.

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
        with replacing(self.run / "reconstructions" / f"step={trainer.global_step:08d}.png") as file:
            ours = pl_module.model.reconstruct(self.images.to(pl_module.device)).cpu()
            image_grid(self.images.cpu(), ours).save(file, "PNG")
        write_row(trainer, pl_module.validation_figures())
        for level, health in pl_module.codebook_health().items():
            if health.collapsed.any():
                tqdm.write(
                    f"step {trainer.global_step}: codebooks of level {level} have collapsed\n{health}", file=sys.stderr
                )


def write_row(trainer: Trainer, figures: dict[str, float]) -> None:
    """Give figures of the step just done to all loggers."""
    for logger in trainer.loggers:
        logger.log_metrics(figures, step=trainer.global_step)


def save_model(model: DQAE, folder: Path) -> None:
    """`save_pretrained` into `folder`, each file replaced whole."""
    with folder_beside(folder) as partial:
        try:
            model.save_pretrained(partial)
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(f"{folder} could not be written: {error}; make room and go on with --resume") from error
        folder.mkdir(exist_ok=True)
        for file in partial.iterdir():
            file.replace(folder / file.name)


class ProgressBar(Callback):
    """step 120/3000 [00:12<04:48] loss 0.61, mse_normalized 0.04, ..."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            bar_format="step {n_fmt}/{total_fmt} {bar:20} [{elapsed}<{remaining}]{postfix}",
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_) -> None:
        assert isinstance(pl_module, DQAETraining)
        figures = (f"{name} {value:.4g}" for name, value in pl_module.figures.items())
        self.bar.set_postfix_str(", ".join(figures), refresh=False)
        self.bar.update()

    def on_train_end(self, *_) -> None:
        self.bar.close()

    def on_exception(self, *_) -> None:
        if hasattr(self, "bar"):  # not yet where the data or a checkpoint could not be read
            self.bar.close()
