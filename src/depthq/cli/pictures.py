"""Where the images of a file go: PNG files by their names."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from torch import Tensor

from depthq.pixels import to_picture

_DIGITS = 8


def save_by_name(images: Iterable[tuple[str, Tensor]], folder: Path) -> int:
    """Write images uint8 (C, H, W) as PNG files below a folder, and count them.

    A name is a path relative to the folder, whose suffix makes way for .png; where that is taken, .png stands behind
    the whole name. A number, such as the row of a parquet file, has eight digits, alone or behind the file's path.

    Raises:
        ValueError: If a name leads out of the folder.
    """
    count = 0
    for path, image in _with_paths(images, folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        to_picture(image).save(path)
        count += 1
    return count


def _with_paths(images: Iterable[tuple[str, Tensor]], folder: Path) -> Iterator[tuple[Path, Tensor]]:
    taken = set()
    for name, image in images:
        relative = _relative(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ValueError(f"names in the file must lie within a folder; got {name!r}; depthq wrote no such file")
        path = relative.with_suffix(".png")
        if path in taken:
            path = relative.with_name(relative.name + ".png")
        taken.add(path)
        yield folder / path, image


def _relative(name: str) -> PurePosixPath:
    file, colon, row = name.rpartition(":")
    if row.isdecimal():
        return PurePosixPath(file + "/" * len(colon) + row.zfill(_DIGITS))
    return PurePosixPath(name)
