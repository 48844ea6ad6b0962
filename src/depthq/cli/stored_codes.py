"""Codes that lie in a file: what depthq encode wrote, or an integer .npy array of any quantizer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from depthq.analysis import CodeCounts
from depthq.analysis.counting import TABLES_LIMIT_BYTES
from depthq.codes.shards import is_shard_folder
from depthq.files import open_npy

NPY_MAGIC, PARQUET_MAGIC = b"\x93NUMPY", b"PAR1"


def is_codes_file(path: Path) -> bool:
    """Whether `path` is meant to be codes, not a model: a file, or a folder of shards."""
    return path.is_file() or is_shard_folder(path) or (path.suffix in (".npy", ".parquet") and not path.is_dir())


def count_stored_codes(path: Path, codebook_sizes: Sequence[int], *, limit: int | None = None) -> CodeCounts:
    """Count the codes of a file, without the tables that would take more than 1 GiB.

    Args:
        path: What `depthq encode` wrote, a file or a folder of shards, or an integer .npy array (N, M) or
            (B, M, *positions), which is read piece by piece and may be larger than memory.
        codebook_sizes: K of an array's codebooks, one for all or one of each. A codes file knows its own: none need be
            given.
        limit: Only the first so many images, or rows.

    Raises:
        ValueError: If there is no such file, it is of neither kind or damaged, its codes do not fit the sizes, or they
            are of images of several sizes.
    """
    if is_shard_folder(path):
        return _count_codes_file(path, codebook_sizes, limit)
    if not path.is_file():
        raise ValueError(f"{path} must be a file of codes; there is none; make one with depthq encode or numpy.save")
    with path.open("rb") as file:
        start = file.read(len(NPY_MAGIC))
    if start == NPY_MAGIC:
        return _count_array(path, codebook_sizes, limit)
    if start.startswith(PARQUET_MAGIC):
        return _count_codes_file(path, codebook_sizes, limit)
    raise ValueError(
        f"{path} must be a file of depthq encode or an integer .npy array; got neither; "
        "save codes with numpy.save, or give the folder of a run"
    )


def _count_array(path: Path, codebook_sizes: Sequence[int], limit: int | None) -> CodeCounts:
    codes = _open_array(path)
    if not codebook_sizes:
        raise ValueError(f"--codebook-size must be given: {path} does not say how many codes its codebooks have")
    num_codebooks = codes.shape[1]
    if len(codebook_sizes) not in (1, num_codebooks):
        raise ValueError(
            f"--codebook-size must be one K, or one for each of the {num_codebooks} codebooks on axis 1 of {path}; "
            f"got {len(codebook_sizes)}"
        )
    sizes = list(codebook_sizes) * (num_codebooks if len(codebook_sizes) == 1 else 1)
    counts = CodeCounts(sizes, limit_bytes=TABLES_LIMIT_BYTES)
    try:
        return counts.update(codes[:limit])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _open_array(path: Path) -> np.ndarray:
    try:
        codes = open_npy(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} must be a whole .npy array of integers; got: {error}; save it anew") from error
    if codes.dtype.kind not in "iu" or codes.ndim < 2 or codes.size == 0:
        raise ValueError(
            f"{path} must hold integers (N, M) or (B, M, *positions), M codebooks on axis 1; "
            f"got {codes.dtype} {codes.shape}; save the codes so, not the latents"
        )
    return codes


def _count_codes_file(path: Path, codebook_sizes: Sequence[int], limit: int | None) -> CodeCounts:
    from depthq.codes.file import read_codes, read_header  # here: --help need not wait for what reads parquet
    from depthq.progress import progress

    sizes = read_header(path).codebook_sizes
    told = [tuple(codebook_sizes) * (len(level) if len(codebook_sizes) == 1 else 1) for level in sizes]
    if codebook_sizes and tuple(told) != sizes:
        raise ValueError(f"--codebook-size must be what {path} says, {sizes}; got {list(codebook_sizes)}; leave it out")
    counts, left, shapes = CodeCounts(sizes, limit_bytes=TABLES_LIMIT_BYTES), limit, None
    for batch in progress(read_codes(path), unit="batch"):
        codes = batch.codes[:left]
        if len(codes) == 0:
            break
        shapes = shapes or codes.shapes
        if codes.shapes != shapes:
            raise ValueError(
                f"{path} must hold codes of images of one size, whose positions can be counted together; got shapes "
                f"{shapes} and {codes.shapes}; encode crops, with depthq encode --crop SIZE"
            )
        counts.update(codes)
        left = None if left is None else left - len(codes)
    return counts
