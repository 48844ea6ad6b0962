"""codes.parquet: one row per image, one column per level, and what is needed to decode them again."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from depthq.codes import Codes
from depthq.files import replacing

FORMAT_VERSION = 1
METADATA_KEY = b"depthq"


def write_codes(path: Path, batches: Iterable[Codes], *, model_fingerprint: str) -> int:
    """Write batches of codes, as they come, to one parquet file; `path` appears only when it is whole.

    Every code takes the smallest unsigned integer type that holds its level's K, before parquet's own compression.

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
    with replacing(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for codes in _chain(first, batches):
            writer.write_table(_table(codes, schema))
            images += len(codes)
    return images


def read_codes(path: Path, *, batch_size: int, model_fingerprint: str | None = None) -> Iterator[Codes]:
    """Codes from a file that `write_codes` wrote, `batch_size` images at a time.

    Args:
        path: The file.
        batch_size: Images per batch; the last one may have fewer.
        model_fingerprint: If given, the model that must have made them.

    Raises:
        ValueError: If the file is damaged, is no codes file, or was made by another model.
    """
    try:
        file = pq.ParquetFile(path)
        header = json.loads(file.schema_arrow.metadata[METADATA_KEY])
        sizes, shapes = header["codebook_sizes"], header["shapes"]
    except (pa.ArrowException, TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} must be a whole file of codes; got: {error}; encode the images again") from error
    if header["format_version"] != FORMAT_VERSION:
        raise ValueError(f"{path} must be of format {FORMAT_VERSION}; got {header['format_version']}; update depthq")
    if model_fingerprint not in (None, header["model_fingerprint"]):
        raise ValueError(
            f"{path} must hold codes of this model ({model_fingerprint[:12]}); got those of another "
            f"({header['model_fingerprint'][:12]}); decode them with the model that made them"
        )
    return _batches(file, path, sizes, shapes, batch_size)


def _batches(file: pq.ParquetFile, path: Path, sizes, shapes, batch_size: int) -> Iterator[Codes]:
    try:
        with file:
            for batch in file.iter_batches(batch_size=batch_size):
                flat = [column.flatten().to_numpy(zero_copy_only=False).astype(np.int64) for column in batch.columns]
                levels = [torch.from_numpy(codes).view(-1, *shape) for codes, shape in zip(flat, shapes, strict=True)]
                yield Codes(tuple(levels), sizes)
    except pa.ArrowException as error:
        raise ValueError(f"{path} must be a whole file of codes; got: {error}; encode the images again") from error


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
