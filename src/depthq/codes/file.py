"""codes.parquet: one row per image, one column per level, and what is needed to decode them again."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from depthq.codes import Codes
from depthq.extras import explain_missing
from depthq.files import replacing

with explain_missing():
    import pyarrow as pa
    import pyarrow.parquet as pq

FORMAT_VERSION = 1
METADATA_KEY = b"depthq"


def write_codes(path: Path, batches: Iterable[Codes], *, model_fingerprint: str) -> int:
    """Write batches of codes, as they come, to one parquet file; `path` appears only when it is whole.

    Every code takes the smallest unsigned integer type that holds its level's K, before parquet's own compression.
    Each batch is a row group of its own, and pages carry checksums.

    Args:
        path: The file; one that is there is replaced.
        batches: Codes of one model, all on one grid.
        model_fingerprint: `DQAE.fingerprint` of the model that made them.

    Returns:
        The number of images written.

    Raises:
        ValueError: If there are no batches.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ValueError("batches must hold at least one image; got none")
    schema = _schema(first, model_fingerprint)
    images = 0
    with replacing(path) as file, _writer(file, schema) as writer:
        for codes in _chain(first, batches):
            writer.write_table(_table(codes, schema))
            images += len(codes)
    return images


def read_codes(path: Path, *, model_fingerprint: str | None = None) -> Iterator[Codes]:
    """Codes from a file that `write_codes` wrote, in the very batches in which they were written.

    The same batches, because the last bit of what a model computes may depend on the size of its batch.

    Args:
        path: The file.
        model_fingerprint: If given, the model that must have made them.

    Raises:
        ValueError: If the file is damaged, is no codes file, or was made by another model; damage behind the header
            is found, and raised, on the way.
    """
    with _explained(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        header = json.loads(file.schema_arrow.metadata[METADATA_KEY])
        version, maker = header["format_version"], header["model_fingerprint"]
        sizes, shapes = header["codebook_sizes"], header["shapes"]
    if version != FORMAT_VERSION:
        raise ValueError(f"{path} must be of format {FORMAT_VERSION}; got {version}; update depthq")
    if model_fingerprint not in (None, maker):
        raise ValueError(
            f"{path} must hold codes of this model ({model_fingerprint[:12]}); got those of another ({maker[:12]}); "
            "decode them with the model that made them"
        )
    return _batches(file, path, sizes, shapes)


def _batches(file: pq.ParquetFile, path: Path, sizes, shapes) -> Iterator[Codes]:
    with file:
        for group in range(file.num_row_groups):
            with _explained(path):
                columns = file.read_row_group(group).columns
                flat = [column.combine_chunks().flatten().to_numpy().astype(np.int64) for column in columns]
                levels = [torch.from_numpy(codes).view(-1, *shape) for codes, shape in zip(flat, shapes, strict=True)]
                codes = Codes(tuple(levels), sizes)
            yield codes


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever a damaged or foreign file makes the readers raise, as one ValueError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, TypeError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} must be a whole file of codes; got: {error}; encode the images again") from error


def _writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)


def _schema(codes: Codes, model_fingerprint: str) -> pa.Schema:
    header = {
        "format_version": FORMAT_VERSION,
        "model_fingerprint": model_fingerprint,
        "codebook_sizes": codes.codebook_sizes,
        "shapes": [tuple(level.shape[1:]) for level in codes.levels],
    }
    fields = [
        pa.field(f"level_{index}", pa.list_(_smallest_type(max(sizes)), level[0].numel()))
        for index, (level, sizes) in enumerate(zip(codes.levels, codes.codebook_sizes, strict=True))
    ]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(header)})


def _table(codes: Codes, schema: pa.Schema) -> pa.Table:
    columns = [
        pa.FixedSizeListArray.from_arrays(
            pa.array(level.cpu().flatten().numpy().astype(field.type.value_type.to_pandas_dtype())),
            type=field.type,
        )
        for level, field in zip(codes.levels, schema, strict=True)
    ]
    return pa.table(columns, schema=schema)


def _smallest_type(codebook_size: int) -> pa.DataType:
    return next(kind for kind in (pa.uint8(), pa.uint16(), pa.uint32()) if codebook_size <= 2**kind.bit_width)


def _chain(first: Codes, rest: Iterator[Codes]) -> Iterator[Codes]:
    yield first
    yield from rest
