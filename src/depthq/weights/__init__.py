"""The trained models inside the package, each a folder as `save_pretrained` writes it, with its prior in it."""

from importlib.resources import files
from pathlib import Path

SHIPPED = {
    "photos-small": "photos of any size, lossy and lossless, with a prior over its codes",
    "cifar10-lossless": "32x32 images without loss",
    "mnist-tiny": "handwritten digits, with a prior over its codes",
}
"""Their names, and what each is for."""


def shipped_folder(name: str) -> Path | None:
    """The folder of the shipped model of that name; None if there is none."""
    return Path(str(files(__name__) / name)) if name in SHIPPED else None
