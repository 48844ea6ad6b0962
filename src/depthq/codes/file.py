"""codes.parquet: one row per image, what is known of the image, its codes, and what decodes them again.

Columns, in this order: `id` (string), `label` (int64 or string), `height` and `width` (of the image that was encoded,
in pixels), each where the source of the images has it; then `level_0`, `level_1`, ..., lists that hold (M, *positions)
of a level in row-major order, and `shape_0`, `shape_1`, ..., that shape, which may differ from image to image. What
turns them back into `Codes` is a JSON object under the key `depthq` of the file's metadata: `format_version`,
`model_fingerprint`, per level `codebook_sizes`, and `images_key` where one was given. Under `depthq_batches` stands how
many images each batch had, for each row group; under `depthq_sha256` a checksum of header and rows.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from depthq.codes.batch import CodesBatch
from depthq.codes.codes import Codes
from depthq.codes.shards import ShardFolder
from depthq.extras import explain_missing
from depthq.files import replacing

with explain_missing():
    import pyarrow as pa
    import pyarrow.parquet as pq

FORMAT_VERSION = 4
READABLE_VERSIONS = (1, 2, 3, 4)
"""Version 1 knew nothing of the images but their codes; until version 2 all had one shape, which the header told; until
version 3 each batch was a row group of its own."""
ROW_GROUP_BYTES = 2**20
"""Of codes, uncompressed, from which on a row group ends: few enough to be read at once, enough to be worth a read."""
METADATA_KEY = b"depthq"
BATCHES_KEY = b"depthq_batches"
CHECKSUM_KEY = b"depthq_sha256"
"""Files without it come from before there was one."""

_DAMAGE = (pa.ArrowException, OSError, OverflowError, TypeError, KeyError, AttributeError, ValueError, RuntimeError)
"""What readers raise of damaged or foreign files."""


@dataclass(frozen=True)
class CodesHeader:
    """What a file of codes says of itself."""

    model_fingerprint: str | None
    """`DQAE.fingerprint` of the model that made the codes; None for codes that no DQ-AE made."""
    codebook_sizes: tuple[tuple[int, ...], ...]
    """Per level, K of each codebook."""
    num_images: int
    shapes: tuple[tuple[int, ...], ...] | None = None
    """Per level, (M, *positions) of all images, in a file of version 2 or before; None: each row tells its own."""
    images_key: str | None = None
    """What `write_codes` was given to tell the images from others."""


def write_codes(
    path: str | Path,
    batches: Iterable[Codes | CodesBatch],
    *,
    model_fingerprint: str | None,
    label_type: type[int] | type[str] | None = None,
    images_key: str | None = None,
) -> int:
    """Write batches of codes, as they come, to one parquet file; `path` appears only when it is whole.

    Every code takes the smallest unsigned integer type that holds its level's K, before parquet's own compression.
    Row groups take whole batches, until they have 1 MiB of codes; pages carry checksums.

    Args:
        path: The file; one that is there is replaced.
        batches: Codes with the same codebooks, bare or with what is known of their images; each batch of one shape.
            Those of no image are left out.
        model_fingerprint: `DQAE.fingerprint` of the model that made them; None if it was no DQ-AE.
        label_type: What labels are, for where the first batch may have none to tell by; None: as its labels, and int
            where it has none.
        images_key: What tells the images from others, kept in the header; None: nothing does.

    Returns:
        The number of images written.

    Raises:
        ValueError: If there are no images, batches differ in codebooks, rank, or in what is known of their images,
            labels are of another type, or levels have no codebooks or one of more than 2**32 codes.
    """
    path = Path(path)
    known = (batch if isinstance(batch, CodesBatch) else CodesBatch(batch) for batch in batches)
    whole = (batch for batch in known if len(batch.codes))
    first = next(whole, None)
    if first is None:
        raise ValueError("batches must hold at least one image; got none")
    label_type = label_type or _label_type(first) or int
    schema = _schema(first, model_fingerprint, label_type, images_key)
    images, checksum = 0, _Checksum(schema.metadata[METADATA_KEY])
    with replacing(path) as file, _writer(file, schema) as writer:
        groups = _RowGroups(writer)
        for batch in chain([first], whole):
            _check_alike(batch, first)
            _check_labels(batch, label_type, path)
            groups.add(_table(batch, schema))
            checksum.update(batch)
            images += len(batch.codes)
        groups.end()
        writer.add_key_value_metadata(
            {BATCHES_KEY.decode(): json.dumps(groups.batches), CHECKSUM_KEY.decode(): checksum.hexdigest()}
        )
    return images


class _RowGroups:
    """Batches as row groups of some size."""

    def __init__(self, writer: pq.ParquetWriter):
        self.batches: list[list[int]] = []
        """For each row group, the number of images of its batches."""
        self._writer = writer
        self._pending: list[pa.Table] = []

    def add(self, batch: pa.Table) -> None:
        self._pending.append(batch)
        if sum(table.nbytes for table in self._pending) >= ROW_GROUP_BYTES:
            self.end()

    def end(self) -> None:
        if self._pending:
            self._writer.write_table(pa.concat_tables(self._pending), row_group_size=2**30)
            self.batches.append([len(table) for table in self._pending])
            self._pending = []


def read_header(path: str | Path) -> CodesHeader:
    """What a file that `write_codes` wrote, or a folder of such shards, says of itself, without its codes.

    Raises:
        ValueError: If the file is damaged, no codes file, or written by a later version; if the folder misses shards,
            or they are of several models.
    """
    path, headers = Path(path), []
    for file in _files(path):
        with _opened(file) as opened:
            headers.append(_header(opened, file))
    first = headers[0]
    for file, header in zip(_files(path), headers, strict=True):
        if (header.model_fingerprint, header.codebook_sizes) != (first.model_fingerprint, first.codebook_sizes):
            raise ValueError(
                f"{path} must hold codes of one model; {file.name} is of another; delete it, and run the depthq encode "
                "that began the folder once more"
            )
    return replace(first, num_images=sum(header.num_images for header in headers))


def _files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder of shards that hold any images."""
    if not path.is_dir():
        return [path]
    files = ShardFolder.open(path).files()
    if not files:
        raise ValueError(f"{path} must hold codes of at least one image; got none; encode other images")
    return files


def read_codes(path: str | Path, *, model_fingerprint: str | None = None) -> Iterator[CodesBatch]:
    """Codes from a file that `write_codes` wrote, in the very batches in which they were written; or of a folder of
    such shards, one after the other. No more is in memory at a time than a row group.

    The same batches, because the last bit of what a model computes may depend on the size of its batch.

    Args:
        path: The file, or the folder.
        model_fingerprint: If given, the model that must have made them.

    Raises:
        ValueError: If a file is damaged, is no codes file, or was made by another model, or the folder misses shards;
            damage behind the header is found, and raised, on the way.
    """
    path = Path(path)
    header = read_header(path)
    maker = header.model_fingerprint
    if model_fingerprint not in (None, maker):
        raise ValueError(
            f"{path} must hold codes of this model ({model_fingerprint[:12]}); got those of "
            f"{'no depthq model' if maker is None else f'another ({maker[:12]})'}; "
            "decode them with the model that made them"
        )
    return (batch for file in _files(path) for batch in _batches(file))


def _batches(path: Path) -> Iterator[CodesBatch]:
    with _opened(path) as file:
        header = _header(file, path)
        metadata = file.metadata.metadata or {}
        checksum, written = _Checksum(file.schema_arrow.metadata[METADATA_KEY]), metadata.get(CHECKSUM_KEY)
        with _explained(path):
            groups = _batches_of_groups(file, metadata)
        for group, sizes in enumerate(groups):
            with _explained(path):
                table, start = file.read_row_group(group), 0
            for size in sizes:
                with _explained(path):
                    batch = _batch(table.slice(start, size), header)
                    checksum.update(batch)
                yield batch
                start += size
        with _explained(path):
            if written is not None and written.decode() != checksum.hexdigest():
                raise ValueError("the checksum differs: its rows are not as they were written")


def _batches_of_groups(file: pq.ParquetFile, metadata: dict[bytes, bytes]) -> list[list[int]]:
    """For each row group, the number of images of its batches."""
    rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    if BATCHES_KEY not in metadata:  # of version 3 or before
        return [[num_rows] for num_rows in rows]
    batches = json.loads(metadata[BATCHES_KEY])
    if [sum(sizes) for sizes in batches] != rows or any(size < 1 for sizes in batches for size in sizes):
        raise ValueError(f"batches of {batches} images in row groups of {rows}")
    return batches


class _Checksum:
    """SHA-256 of the header and of all batches, in the order in which they were written."""

    def __init__(self, header: bytes):
        self._digest = hashlib.sha256(header)

    def update(self, batch: CodesBatch) -> None:
        known = [list(values) if values is not None else None for values in (batch.ids, batch.labels)]
        sizes = None if batch.sizes is None else [list(size) for size in batch.sizes]
        self._digest.update(json.dumps([*known, sizes, batch.codes.shapes]).encode(errors="backslashreplace"))
        for level, codebook_sizes in zip(batch.codes.levels, batch.codes.codebook_sizes, strict=True):
            kind = _smallest_type(max(codebook_sizes)).to_pandas_dtype()
            self._digest.update(level.cpu().contiguous().numpy().astype(kind).data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _batch(table: pa.Table, header: CodesHeader) -> CodesBatch:
    """A row group as codes; whatever does not fit the header is a ValueError."""
    columns = {
        name: table[name].to_pylist() for name in ("id", "label", "height", "width") if name in table.column_names
    }
    if any(None in columns.get(name, ()) for name in ("id", "height", "width")):
        raise ValueError("an image without its id or size")
    num_levels = len(header.codebook_sizes)
    if f"level_{num_levels}" in table.column_names:
        raise ValueError(f"more levels than the {num_levels} of the header")
    shapes = header.shapes or [_read_shape(table[f"shape_{index}"]) for index in range(num_levels)]
    levels = [_read_level(table[f"level_{index}"], shape) for index, shape in enumerate(shapes)]
    sizes = list(zip(columns["height"], columns["width"], strict=True)) if "height" in columns else None
    return CodesBatch(Codes(tuple(levels), header.codebook_sizes), columns.get("id"), columns.get("label"), sizes)


def _read_shape(column: pa.ChunkedArray) -> tuple[int, ...]:
    """(M, *positions), the same for all images of a batch."""
    shapes = {tuple(shape) for shape in column.to_pylist()}
    if len(shapes) != 1:
        raise ValueError(f"a batch with codes of several shapes, {sorted(shapes)}")
    return shapes.pop()


def _read_level(column: pa.ChunkedArray, shape: tuple[int, ...]) -> Tensor:
    """int64 (B, M, *positions)."""
    lists = column.combine_chunks()
    codes = lists.flatten().to_numpy()
    is_fixed = pa.types.is_fixed_size_list(lists.type)
    lengths = {lists.type.list_size} if is_fixed else set(lists.value_lengths().to_pylist())
    if lists.null_count or lengths != {math.prod(shape)}:
        raise ValueError(f"codes of {lists.type}, {lists.null_count} of them missing, where their shape is {shape}")
    return torch.from_numpy(codes.astype(np.int64)).view(len(lists), *shape)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    with _explained(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
    with file:
        yield file


def _header(file: pq.ParquetFile, path: Path) -> CodesHeader:
    metadata = file.schema_arrow.metadata or {}
    if METADATA_KEY not in metadata:
        raise ValueError(
            f"{path} must be a file of codes that depthq encode or write_codes made; "
            "got a parquet file without codes, made by something else; encode images into another file"
        )
    with _explained(path):
        content = json.loads(metadata[METADATA_KEY])
        version = content["format_version"]
    if version not in READABLE_VERSIONS:
        raise ValueError(f"{path} must be of format {FORMAT_VERSION} or before; got {version}; update depthq")
    with _explained(path):
        maker, sizes = content["model_fingerprint"], _of_levels(content["codebook_sizes"])
        shapes = _of_levels(content["shapes"]) if version < FORMAT_VERSION else None
        if not isinstance(maker, str | None) or (shapes is not None and len(sizes) != len(shapes)):
            raise ValueError(f"a header of model {maker}, codebook sizes {sizes} and shapes {shapes}")
        return CodesHeader(maker, sizes, file.metadata.num_rows, shapes, content.get("images_key"))


def _of_levels(values: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, level)) for level in values)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever a damaged or foreign file makes the readers raise, as one ValueError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise ValueError(f"{path} must be a whole file of codes; got: {error}; encode the images again") from error


def _writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)


def _schema(batch: CodesBatch, model_fingerprint: str | None, label_type: type, images_key: str | None) -> pa.Schema:
    codes = batch.codes
    if not all(codes.codebook_sizes):
        raise ValueError(f"batches must have codebooks at each level; got codebook_sizes {codes.codebook_sizes}")
    header = {
        "format_version": FORMAT_VERSION,
        "model_fingerprint": model_fingerprint,
        "codebook_sizes": codes.codebook_sizes,
    }
    if images_key is not None:
        header["images_key"] = images_key
    types = {"id": pa.string(), "label": pa.string() if label_type is str else pa.int64()}
    of_images = [pa.field(name, types.get(name, pa.int32())) for name in _of_images(batch)]
    levels = [
        pa.field(f"level_{index}", pa.large_list(_smallest_type(max(sizes))))
        for index, sizes in enumerate(codes.codebook_sizes)
    ]
    shapes = [pa.field(f"shape_{index}", pa.list_(pa.int32(), len(shape))) for index, shape in enumerate(codes.shapes)]
    return pa.schema([*of_images, *levels, *shapes], metadata={METADATA_KEY: json.dumps(header)})


def _check_alike(batch: CodesBatch, first: CodesBatch) -> None:
    for name, ours, others in (
        ("codebook sizes", batch.codes.codebook_sizes, first.codes.codebook_sizes),
        ("ranks", tuple(map(len, batch.codes.shapes)), tuple(map(len, first.codes.shapes))),
        ("columns", tuple(_of_images(batch)), tuple(_of_images(first))),
    ):
        if ours != others:
            raise ValueError(f"batches must all have the same {name}; got {ours} after {others}")


def _of_images(batch: CodesBatch) -> dict[str, Sequence]:
    """The columns of what is known of the images."""
    columns: dict[str, Sequence | None] = {"id": batch.ids, "label": batch.labels}
    if batch.sizes is not None:
        columns |= {"height": [height for height, _ in batch.sizes], "width": [width for _, width in batch.sizes]}
    return {name: values for name, values in columns.items() if values is not None}


def _label_type(batch: CodesBatch) -> type | None:
    """None if all labels are."""
    return next((type(label) for label in batch.labels or () if label is not None), None)


def _check_labels(batch: CodesBatch, label_type: type, path: Path) -> None:
    kind = _label_type(batch)
    if kind not in (None, label_type):
        raise ValueError(
            f"labels must all be {label_type.__name__} in {path}, as its first batch or label_type says; "
            f"got {kind.__name__}; give label_type={kind.__name__}, or convert them"
        )


def _table(batch: CodesBatch, schema: pa.Schema) -> pa.Table:
    of_images = _of_images(batch)
    columns = [pa.array(values, schema.field(name).type) for name, values in of_images.items()]
    for index, level in enumerate(batch.codes.levels):
        kind = schema.field(f"level_{index}").type
        flat = level.cpu().flatten().numpy().astype(kind.value_type.to_pandas_dtype())
        starts = np.arange(len(level) + 1) * level[0].numel()
        columns.append(pa.LargeListArray.from_arrays(pa.array(starts), pa.array(flat), type=kind))
    for index, shape in enumerate(batch.codes.shapes):
        columns.append(pa.array([shape] * len(batch.codes), schema.field(f"shape_{index}").type))
    return pa.table(columns, schema=schema)


def _smallest_type(codebook_size: int) -> pa.DataType:
    for kind in (pa.uint8(), pa.uint16(), pa.uint32()):
        if codebook_size <= 2**kind.bit_width:
            return kind
    raise ValueError(
        f"codebook_sizes must be at most 2**32 to be written; got {codebook_size}; split such codes into several"
    )
