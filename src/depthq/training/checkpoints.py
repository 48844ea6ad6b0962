"""Checkpoints that are whole or absent, and never run code when opened."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer

from depthq.files import replacing
from depthq.training.stopping import StopRequest


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to disk, then renames: a crash or a full disk leaves the former.

    Lightning's own writer goes through the system's temporary folder, and a move from there is no rename. Reading
    allows tensors and plain containers only.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        try:
            with replacing(Path(path)) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            raise OSError(
                f"{path} could not be written ({error}); the checkpoint before it stays; make room, then --resume"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums that it writes
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} differs")
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


class Checkpoints(Callback):
    """Saves every so many steps, and keeps the newest.

    A step that is validated is saved behind its validation, and the last one by `train`, so that a checkpoint is only
    there when all that its step leaves behind is: rows of metrics.jsonl, the grid, the model.

    Args:
        folder: RUN/checkpoints.
        every: Steps between checkpoints.
        validate_every: Steps between validations.
        stop: Whether the run is to stop: then the step just done is saved, and KeyboardInterrupt raised.
        save_start: Whether to save before the first step as well.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        validate_every: int,
        stop: StopRequest | None = None,
        save_start: bool = False,
    ):
        self.folder = folder
        self.every = every
        self.validate_every = validate_every
        self.stop = StopRequest() if stop is None else stop
        self.save_start = save_start

    def on_train_start(self, trainer: Trainer, *_) -> None:
        if self.save_start and trainer.global_step == 0:
            self.save(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_) -> None:
        if trainer.global_step % self.validate_every:
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, *_) -> None:
        if trainer.global_step < trainer.max_steps:
            self._save_if_due(trainer)

    def _save_if_due(self, trainer: Trainer) -> None:
        is_stopped = bool(self.stop)
        if trainer.world_size > 1:  # the signal may have come to the others a step earlier, or not at all
            is_stopped = trainer.strategy.reduce_boolean_decision(is_stopped, all=False)
        if is_stopped or self._is_due(trainer):
            self.save(trainer)
        if is_stopped and trainer.global_step < trainer.max_steps:
            raise KeyboardInterrupt

    def _is_due(self, trainer: Trainer) -> bool:
        return trainer.global_step % self.every == 0 and trainer.global_step < trainer.max_steps

    def save(self, trainer: Trainer) -> None:
        """Save now, then delete the older ones."""
        path = self.folder / f"step={trainer.global_step:08d}.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            for other in set(self.folder.glob("step=*.ckpt")) - {path}:
                other.unlink()


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step in `folder`; None if there is none."""
    return max(folder.glob("step=*.ckpt"), default=None)


def step_of(checkpoint: Path) -> int:
    """How many steps a checkpoint has behind it, by its name."""
    return int(checkpoint.stem.removeprefix("step="))
