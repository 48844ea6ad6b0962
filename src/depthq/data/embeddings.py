"""Embeddings from files: (N, D) arrays that may be larger than memory."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from depthq.data.errors import DataError
from depthq.files import open_npy, reserve

ROWS_AT_ONCE = 65_536


def open_embeddings(path: Path, column: str | None = None) -> np.ndarray:
    """The vectors of a file, (N, D), read as they are used.

    Args:
        path: A .npy file, which is memory-mapped; or a .parquet file with a column of lists of numbers, all of one
            length, which is copied to a temporary file first, so that rows can be drawn at random.
        column: Of a parquet file; None: the only one that holds lists of numbers.

    Returns:
        Numbers of any kind, (N, D).

    Raises:
        DataError: If there is no such file, it is damaged, of another format or rank, empty, or leaves a choice; or if
            the temporary file has no room.
    """
    if not path.is_file():
        raise DataError(f"embeddings must be a .npy or .parquet file; got {path}, which is not there")
    if path.suffix == ".npy":
        if column is not None:
            raise DataError(f"column must be of a .parquet file; got {column} and {path}; leave it out")
        try:
            vectors = open_npy(path)
        except (ValueError, OSError) as error:
            raise DataError(
                f"{path} must be a whole .npy array of numbers; got: {error}; write it with numpy.save"
            ) from error
    elif path.suffix == ".parquet":
        vectors = _from_parquet(path, column)
    else:
        raise DataError(f"embeddings must be a .npy or .parquet file; got {path.name}; convert it with numpy.save")
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise DataError(f"{path} must hold numbers of shape (N, D); got {vectors.dtype} of shape {vectors.shape}")
    if not vectors.size:
        raise DataError(f"{path} must hold at least one vector; got shape {vectors.shape}")
    return vectors


def _from_parquet(path: Path, column: str | None) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = [field.name for field in file.schema_arrow if _is_vector(field.type)]
        if column is None and len(names) != 1:
            found = ", ".join(names) or f"none among {', '.join(file.schema_arrow.names)}"
            raise DataError(f"{path} must have one column of lists of numbers; got {found}; name one with --column")
        name = names[0] if column is None else column
        if name not in names:
            raise DataError(f"column must be one of lists of numbers, {', '.join(names) or 'none'}; got {name}")
        return _copied(file, name, path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} must be a whole parquet file; got: {error}; write it anew") from error


def _is_vector(kind: Any) -> bool:
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _copied(file: Any, name: str, path: Path) -> np.ndarray:
    """A memory-mapped copy of a column."""
    num_rows, copy, start = file.metadata.num_rows, None, 0
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=[name]):
        values = batch.column(0)
        if values.null_count or values.flatten().null_count:
            raise DataError(f"{path} must hold a vector in every row of {name}; got nulls; drop those rows")
        lengths = set(np.diff(values.offsets)) if hasattr(values, "offsets") else {values.type.list_size}
        dim = lengths.pop() if lengths else 0
        if lengths or (copy is not None and dim != copy.shape[1]):
            raise DataError(f"{path} must hold vectors of one length in {name}; got {sorted({dim, *lengths})}")
        flat = values.flatten().to_numpy(zero_copy_only=False)
        if copy is None:
            copy = _scratch((num_rows, int(dim)), flat.dtype)
        copy[start : start + len(batch)] = flat.reshape(len(batch), -1)
        start += len(batch)
    return np.empty((0, 0), np.float32) if copy is None else copy


def _scratch(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An array in a temporary file, which is gone when nobody uses it any more."""
    try:
        with tempfile.NamedTemporaryFile(suffix=".vectors") as file:  # the map keeps it alive, without a name
            array = np.memmap(file.name, dtype, "w+", shape=shape)
            reserve(Path(file.name))
    except OSError as error:
        num_bytes = math.prod(shape) * dtype.itemsize
        raise DataError(
            f"TMPDIR must be a folder with room for a copy of the vectors, {num_bytes} bytes; got: {error}; "
            "set it to another"
        ) from error
    return array
