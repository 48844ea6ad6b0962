"""Which column of a table holds the images, which one the labels, and how a cell becomes an encoded image."""

import re
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from depthq.data.errors import DataError
from depthq.extras import explain_missing

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE_NAMES = ("image", "images", "img", "picture", "photo", "pixels", "pixel_values", "jpg", "jpeg", "png", "webp")
"""What a column of images is usually called, in any case; one of them wins over others."""
LABEL_NAMES = ("label",)
_LABEL_TYPE = re.compile(r"u?int\d+|(large_)?string")


def image_table(table: "Dataset", wanted: str | None, source: str) -> "Dataset":
    """`table` with its column of images alone, called `image`, and still encoded.

    Columns that are called as images are come first. Of these, or where there are none of all, those that the table
    declares as images come first, then those of bytes or of {"bytes", "path"}, then nested lists of numbers (H, W),
    (H, W, C) or (C, H, W).

    Args:
        table: Any.
        wanted: The column's name; None: the only one, or the one that is called as images are.
        source: What messages call the table.

    Raises:
        DataError: If there is no such column, or several.
    """
    with explain_missing():
        import datasets

    kinds = [_declared(table), _bytes(table), _nested(table)]
    if wanted is not None:
        candidates = [name for names in kinds for name in names]
        if wanted not in candidates:
            raise DataError(
                f"image_column must be one of {_listed(candidates)}, which can hold images; got {wanted!r} for {source}"
            )
        name = wanted
    else:
        usual = [[name for name in names if name.lower() in IMAGE_NAMES] for names in kinds]
        name = _only(next(filter(None, usual + kinds), []), table, source)
    table = table.select_columns([name])
    if name != "image":
        table = table.rename_column(name, "image")
    return table if name in kinds[2] else table.cast_column("image", datasets.Image(decode=False))


def label_table(
    tables: Sequence["Dataset"], wanted: str | None, source: str
) -> "tuple[Dataset | None, tuple[str, ...]]":
    """The labels of tables one after the other, as a column `label`; None if they have none of one type.

    Returns:
        The labels, and in words a column that is called as labels are and holds none.

    Raises:
        DataError: If the column that is asked for is not there in all, or holds no whole numbers or strings.
    """
    with explain_missing():
        import datasets

    if wanted is not None and any(wanted not in table.features for table in tables):
        raise DataError(f"label_column must be one of {_listed(tables[0].column_names)}; got {wanted!r} for {source}")
    name = wanted or next((name for name in LABEL_NAMES if any(name in table.features for table in tables)), None)
    if name is None:
        return None, ()
    kinds = [table.features.get(name) for table in tables]
    if not _LABEL_TYPE.fullmatch(getattr(kinds[0], "dtype", "")) or any(kind != kinds[0] for kind in kinds):
        if wanted is None:
            types = dict.fromkeys("none" if kind is None else str(getattr(kind, "dtype", kind)) for kind in kinds)
            return None, (f"column {name} of {', '.join(types)}: labels are whole numbers or strings, all of one type",)
        raise DataError(f"label_column must hold whole numbers or strings; got {kinds[0]} in {wanted!r} of {source}")
    columns = [table.select_columns([name]) for table in tables]
    labels = datasets.concatenate_datasets(columns)
    return (labels if name == "label" else labels.rename_column(name, "label")), ()


def as_encoded(cell: Any, name: str) -> bytes | str:
    """The bytes, or the path, of a cell of `image_table` or `TarImages`; b"" of one that holds nothing.

    Raises:
        DataError: If it holds numbers that are no image.
    """
    if cell is None:
        return b""
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, dict):
        return cell.get("bytes") or cell.get("path") or b""
    return _as_png(cell, name)


def _as_png(cell: Any, name: str) -> bytes:
    """Nested lists of numbers, as a file without loss."""
    with explain_missing():
        from PIL import Image

    try:
        pixels = np.asarray(cell)
    except ValueError as error:
        raise DataError(f"images as lists must be rectangular; got {name} ({error}); pad or drop it") from error
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if not is_image or not pixels.size or pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise DataError(
            f"images as lists must be whole numbers 0..255 of shape (H, W), (H, W, 3) or (3, H, W); got {pixels.dtype} "
            f"{pixels.shape} in {name}; convert it to uint8"
        )
    file = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _declared(table: "Dataset") -> list[str]:
    import datasets

    return [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]


def _bytes(table: "Dataset") -> list[str]:
    found = []
    for name, feature in table.features.items():
        is_struct = isinstance(feature, dict) and "bytes" in feature and set(feature) <= {"bytes", "path"}
        if is_struct or getattr(feature, "dtype", None) in ("binary", "large_binary"):
            found.append(name)
    return found


def _nested(table: "Dataset") -> list[str]:
    import pyarrow as pa

    found = []
    for field in table.data.schema:
        kind, depth = field.type, 0
        if isinstance(kind, pa.ExtensionType):
            kind = kind.storage_type
        while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind, depth = kind.value_type, depth + 1
        if depth in (2, 3) and pa.types.is_integer(kind):
            found.append(field.name)
    return found


def _only(names: list[str], table: "Dataset", source: str) -> str:
    if not names:
        raise DataError(
            f"data must have a column of images; got the columns {', '.join(table.column_names)} in {source}; "
            "cast one to datasets.Image() and save it again"
        )
    if len(names) > 1:
        raise DataError(
            f"data must tell which column holds the images; got {_listed(names)} in {source}; pass an image_column"
        )
    return names[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
