"""Files and folders that are whole or absent: written beside their place, then renamed into it."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np

_PREFIX, _SUFFIX = ".depthq-", ".partial"
LOCK_NAME = ".depthq-lock"
"""Of the file by which the writer of a folder holds it; it may stay there, and means nothing then."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` only when the block ends well; else `path` stays as it was.

    A process that is killed meanwhile leaves a hidden file beside it, which `remove_leftovers` knows by its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _place_beside(path)
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file by itself
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path` only when the block ends well.

    If `path` is an empty folder, be it the root of a file system or behind a link, what was filled is moved into it one
    by one. What is written is not deleted where that fails: the error says where it is.

    Raises:
        ValueError: If `path` is there already and is not an empty folder.
    """
    is_there = is_empty_folder(path)
    if not is_there:
        check_is_new(path)
    partial = _place_beside(path / "any" if is_there else path)  # inside a folder that is there: on its own file system
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    try:
        if not is_there:
            partial.replace(path)
            return
        for entry in sorted(partial.iterdir()):
            entry.replace(path / entry.name)
        partial.rmdir()
    except OSError as error:
        raise OSError(
            f"{path} could not be filled ({error}); what was written is whole in {partial}; move it"
        ) from error


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder on the file system of `path`; what is still in it when the block ends is deleted."""
    partial = _place_beside(path)
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def reserve(path: Path) -> None:
    """Take from the disk all that the length of a file promises, where the system can do that.

    Else a full disk shows only while a memory map of the file is written to, and that ends the process without a word.

    Raises:
        OSError: If there is too little room; it names the file.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def open_npy(path: Path) -> "np.memmap":
    """The array of a .npy file, memory-mapped; nothing in it is unpickled.

    Raises:
        ValueError: If it is damaged, or another file, such as an archive of arrays; it says how, but names no file.
        OSError: If it cannot be read.
    """
    import numpy as np  # here: of who writes files, few need it

    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged header makes its reader raise anything
        raise ValueError(f"a damaged header, {error}") from error


def readable(path: Path) -> None:
    """Give a file that a library has kept for its owner the mode that any new file has here."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def check_is_new(path: Path) -> None:
    """Raise ValueError if there is anything at `path`: what a command is told to write never replaces a user's file."""
    if path.exists() or path.is_symlink():
        raise ValueError(f"{path} must not exist yet; it does, and is not overwritten; choose another --out")


def is_empty_folder(path: Path) -> bool:
    """Whether `path` is a folder that holds nothing but leftovers."""
    return path.is_dir() and all(map(is_leftover, path.iterdir()))


def is_leftover(path: Path) -> bool:
    """Whether `path` is what a killed process left of a file or folder that it was about to write, or of its lock."""
    return path.name == LOCK_NAME or (path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX))


def remove_leftovers(folder: Path, but_in: Path | None = None) -> None:
    """Delete all leftovers below a folder in which no other process writes now, but for a folder that is another's."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name) != but_in]
        for path in (Path(parent, name) for name in [*folders, *files]):
            if path.match(f"{_PREFIX}*{_SUFFIX}"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _place_beside(path: Path) -> Path:
    """A name in the folder of `path` that nobody else has, so that nothing of a user's is ever written over."""
    return path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
