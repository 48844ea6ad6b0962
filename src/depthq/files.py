"""Files and folders that are whole or absent: written beside their place, then renamed into it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` only when the block ends well; else `path` stays as it was.

    A process that is killed meanwhile leaves "NAME.partial" beside it, which the next one overwrites.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path` only when the block ends well.

    Raises:
        ValueError: If `path` is there already and is not an empty folder.
    """
    if not (path.is_dir() and not any(path.iterdir())):
        check_is_new(path)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_is_new(path: Path) -> None:
    """Raise ValueError if there is anything at `path`: what a command is told to write never replaces a user's file."""
    if path.exists():
        raise ValueError(f"{path} must not exist yet; it does, and is not overwritten; choose another --out")
