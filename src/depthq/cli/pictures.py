"""Where the images of a file go: PNG files by their names."""

from collections.abc import Iterable, Iterator
from itertools import chain, count
from pathlib import Path, PurePosixPath

from torch import Tensor

from depthq.pixels import to_picture

_DIGITS = 8


def save_by_name(images: Iterable[tuple[str, Tensor]], folder: Path) -> int:
    """Write images uint8 (C, H, W) as PNG files below a folder, and count them.

    A name is a path relative to the folder, whose suffix makes way for .png; where that is taken, .png stands behind
    the whole name, and where that is taken too, -2.png and on. A folder that is to be called as an image is already
    gets -2 and on, too. What has no name of its own but a file's and a row or
    key behind it ("shard.tar:cat") lies in a folder that is called as the file is; a row has eight digits.

    Raises:
        ValueError: If a name leads out of the folder.
    """
    saved = 0
    for path, image in _with_paths(images, folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        to_picture(image).save(path)
        saved += 1
    return saved


def _with_paths(images: Iterable[tuple[str, Tensor]], folder: Path) -> Iterator[tuple[Path, Tensor]]:
    taken, folders = set[PurePosixPath](), set[PurePosixPath]()
    for name, image in images:
        relative = _relative(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ValueError(f"names in the file must lie within a folder; got {name!r}; depthq wrote no such file")
        relative = _free_folder(relative.parent, taken) / relative.name
        path = next(path for path in _choices(relative) if path not in taken and path not in folders)
        taken.add(path)
        folders.update(path.parents)
        yield folder / path, image


def _relative(name: str) -> PurePosixPath:
    file, colon, row = name.rpartition(":")
    if row.isdecimal():
        return PurePosixPath(file + "/" * len(colon) + row.zfill(_DIGITS))
    if colon and "." not in row:  # a key in a tar file; what is called so itself has a suffix
        return PurePosixPath(file, row)
    return PurePosixPath(name)


def _free_folder(folder: PurePosixPath, images: set[PurePosixPath]) -> PurePosixPath:
    """The folder, none of whose parts is called as an image is."""
    free = PurePosixPath()
    for part in folder.parts:
        names = chain([part], (f"{part}-{number}" for number in count(2)))
        free = next(free / name for name in names if free / name not in images)
    return free


def _choices(relative: PurePosixPath) -> Iterator[PurePosixPath]:
    """Where an image may lie, the first of them that is free."""
    yield relative.with_suffix(".png")
    yield relative.with_name(f"{relative.name}.png")
    for number in count(2):
        yield relative.with_name(f"{relative.name}-{number}.png")
