"""Parquet files, by path or URL: how many rows they have, and their table, read at any place."""

import errno
import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from depthq.data.errors import DataError
from depthq.extras import explain_missing

if TYPE_CHECKING:  # `datasets` takes a second to import: load it where it is used
    from datasets import Dataset

_SAMPLED_BLOCKS, _BLOCK_BYTES = 64, 4096


def load_parquet(files: list[str]) -> "Dataset":
    """The rows of files with the same columns, one file after the other; memory-mapped, from a copy in the cache.

    Raises:
        DataError: If a file is damaged or has other columns, or the cache cannot be written.
    """
    with explain_missing():
        import datasets
        from datasets.config import HF_DATASETS_CACHE

    datasets.disable_progress_bars()  # of its own copy of the table, which would stand between results
    # [ and * in a path are meant literally.
    patterns = [file if "://" in file else glob.escape(os.path.abspath(file)) for file in files]
    # Its key is a file's path and time of change, which archives and images of containers set as they like.
    cache = Path(HF_DATASETS_CACHE) / f"depthq-{_content_key(files)}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the cache of data sets must be writable; got: {error}; set HF_HOME to a folder that is"
        ) from error
    try:
        return datasets.load_dataset("parquet", data_files=patterns, split="train", cache_dir=str(cache))
    except Exception as error:  # a damaged table makes its readers raise anything
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise DataError(
                f"{cache} must be writable and have room; got: {cause}; set HF_HOME to such a folder"
            ) from error
        raise DataError(
            f"parquet files must be readable and have the same columns; got {error.__cause__ or error} in "
            f"{files[0]}{' or one beside it' if len(files) > 1 else ''}; write them anew"
        ) from error


def _content_key(files: list[str]) -> str:
    """Of the size, the end (a parquet file's footer is there) and blocks spread over each file."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with _opened(path) as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(size.to_bytes(8, "big"))
            for start in np.linspace(0, max(size - _BLOCK_BYTES, 0), _SAMPLED_BLOCKS).astype(int).tolist():
                file.seek(start)
                digest.update(file.read(_BLOCK_BYTES))
            file.seek(max(size - 16 * _BLOCK_BYTES, 0))
            digest.update(file.read())
    return digest.hexdigest()


@contextmanager
def _opened(file: str) -> "Iterator[BinaryIO]":
    """A file by path or URL, to be read."""
    with explain_missing():
        import fsspec

    with fsspec.open(file, "rb") as stream:
        yield cast(BinaryIO, stream)


def num_parquet_rows(file: str) -> int:
    """How many rows a file says that it has.

    Raises:
        DataError: If it is no whole parquet file.
    """
    with explain_missing():
        import pyarrow
        import pyarrow.parquet

    try:
        with _opened(file) as stream:
            return pyarrow.parquet.read_metadata(stream).num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"data files must be whole parquet files; got {file}, which is cut off or of another kind "
            f"({error}); fetch or write it anew, or give the folder that holds the images"
        ) from error
