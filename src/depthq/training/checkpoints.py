"""Checkpoints that are whole or absent, and never run code when opened."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from depthq.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to disk, then renames: a crash or a full disk leaves the former.

    Lightning's own writer goes through the system's temporary folder, and a move from there is no rename. Reading
    allows tensors and plain containers only.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step in `folder`; None if there is none."""
    return max(folder.glob("step=*.ckpt"), default=None)
