"""What a run leaves behind while it trains: metrics.jsonl, reconstructions/, model/, and a progress bar."""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from depthq.files import folder_beside, replacing
from depthq.pixels import image_grid
from depthq.progress import progress_bar
from depthq.runs import load_training_images, name_hashes, read_metrics

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
            rows = [row for row in read_metrics(self.path) if row["step"] <= step]
            with replacing(self.path) as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows).encode())

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


class TrainingRows(Callback):
    """Writes a training step's metrics, and the speed since the row before, every so many steps.

    Args:
        every: Steps between rows.
        metrics: Those of the step just done.
    """

    def __init__(self, every: int, metrics: Callable[[], Mapping[str, float]]):
        self.every = every
        self.metrics = metrics
        self.last: dict[str, float] = {}
        """The last row written; empty before the first."""

    def on_train_start(self, *_) -> None:
        self._restart()

    def on_validation_end(self, *_) -> None:
        self._restart()  # validation is not training time

    def on_train_batch_end(self, trainer, pl_module, outputs, batch: Tensor | list[Tensor], batch_idx: int) -> None:
        self.images += len(batch if isinstance(batch, Tensor) else batch[0]) * trainer.world_size
        if trainer.global_step % self.every == 0:
            speed = self.images / (time.perf_counter() - self.started)
            self.last = {**self.metrics(), "images_per_second": speed}
            write_row(trainer, self.last)
            self._restart()

    def _restart(self) -> None:
        self.started, self.images = time.perf_counter(), 0


class TrainingImages(Callback):
    """Records which images a run is trained on: all that it has been, where a resumed one finds others.

    Args:
        path: RUN/training_images.npy.
        names: Gives what tells the images apart.
    """

    def __init__(self, path: Path, names: Callable[[], list[str]]):
        self.path = path
        self.names = names

    @rank_zero_only
    def on_fit_start(self, *_) -> None:
        hashes = name_hashes(self.names())
        before = load_training_images(self.path.parent)
        if before is not None and not np.array_equal(before, hashes):
            warnings.warn(
                f"training images are not those that {self.path.parent} was started with: "
                f"{len(before)} then, {len(hashes)} now; put them back, or start another run",
                stacklevel=2,
            )
            hashes = np.union1d(before, hashes)
        with replacing(self.path) as file:
            np.save(file, hashes)


class ModelFolder(Callback):
    """Keeps the model as it was at the last validation.

    Args:
        folder: RUN/model.
        save: Writes the model into a folder.
    """

    def __init__(self, folder: Path, save: Callable[[Path], object]):
        self.folder = folder
        self.save = save

    @rank_zero_only
    def on_validation_end(self, *_) -> None:
        save_model(self.save, self.folder)


class Grids(Callback):
    """Draws a grid at every validation: originals, and below them what the model makes of them.

    Args:
        folder: RUN/reconstructions.
        images: uint8 (B, C, H, W), the originals.
        reconstruct: What makes others of the same shape of them, on the device that trains.
    """

    def __init__(self, folder: Path, images: Tensor, reconstruct: Callable[[Tensor], Tensor]):
        self.folder = folder
        self.images = images
        self.reconstruct = reconstruct

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with replacing(self.folder / f"step={trainer.global_step:08d}.png") as file:
            ours = self.reconstruct(self.images.to(pl_module.device)).cpu()
            image_grid(self.images.cpu(), ours).save(file, "PNG")


class ValidationRows(Callback):
    """Writes the metrics of every validation, and says on stderr what people should hear of.

    Args:
        metrics: Those of the validation just done.
        warnings: What to say of it; nothing, if all is well.
    """

    def __init__(self, metrics: Callable[[], Mapping[str, float]], warnings: Callable[[], Iterable[str]]):
        self.metrics = metrics
        self.warnings = warnings

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, *_) -> None:
        write_row(trainer, self.metrics())
        for warning in self.warnings():
            tqdm.write(f"step {trainer.global_step}: {warning}", file=sys.stderr)


def write_row(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Give metrics of the step just done to all loggers."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=trainer.global_step)


def save_model(save: Callable[[Path], object], folder: Path) -> None:
    """What `save` writes, in `folder`, each file replaced whole."""
    with folder_beside(folder) as partial:
        try:
            save(partial)
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(f"{folder} could not be written: {error}; make room and go on with --resume") from error
        folder.mkdir(exist_ok=True)
        for file in partial.iterdir():
            file.replace(folder / file.name)


class ProgressBar(Callback):
    """step 120/3000 [00:12<04:48] loss 0.61, mse_normalized 0.04, ...

    Args:
        metrics: The newest ones.
    """

    def __init__(self, metrics: Callable[[], Mapping[str, float]]):
        self.metrics = metrics

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar = progress_bar(
            total=trainer.max_steps,
            initial=trainer.global_step,
            bar_format="step {n_fmt}/{total_fmt} {bar:20} [{elapsed}<{remaining}]{postfix}",
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, *_) -> None:
        metrics = (f"{name} {value:.4g}" for name, value in self.metrics().items())
        self.bar.set_postfix_str(", ".join(metrics), refresh=False)
        self.bar.update()

    def on_train_end(self, *_) -> None:
        self.bar.close()

    def on_exception(self, *_) -> None:
        if hasattr(self, "bar"):  # not yet where the data or a checkpoint could not be read
            self.bar.close()
