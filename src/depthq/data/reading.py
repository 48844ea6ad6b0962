"""One encoded image -> uint8 pixels (C, H, W), or a `DataError` that names the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from depthq.data.errors import DataError
from depthq.extras import explain_missing

if TYPE_CHECKING:  # Pillow comes with an extra: load it where an image is read
    from PIL import Image

_GRAY_MODES = frozenset({"1", "L", "LA"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"})
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA"})
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class EncodedImage:
    """An image as its file holds it."""

    name: str
    """What messages call it: its path, or its row and parquet file."""
    content: bytes | str
    """The bytes of the file, or its path."""


def read_shape(encoded: EncodedImage) -> tuple[int, int, int]:
    """(C, H, W) from the header alone; C is 1 for gray and 3 for colour.

    Raises:
        DataError: If the header cannot be read, or the image has more than 8 bits per channel.
    """
    with explain_missing():
        from PIL import Image

    with _opened(encoded) as picture:
        width, height = picture.size
        exif = Image.Image.getexif(picture)  # that of the PNG reader would read the pixels
        if exif.get(_EXIF_ORIENTATION, 1) >= 5:  # stored lying on its side
            width, height = height, width
        return _num_channels(picture, encoded.name), height, width


def read_pixels(encoded: EncodedImage, num_channels: int) -> np.ndarray:
    """The pixels, upright as EXIF says; of an animation the first frame.

    Gray images are expanded where `num_channels` is 3; palette, CMYK and YCbCr become RGB; an alpha channel
    that is opaque throughout is dropped.

    Args:
        encoded: The image.
        num_channels: 1 or 3.

    Returns:
        uint8 (C, H, W).

    Raises:
        DataError: If the image cannot be read in full, is transparent anywhere, has more than 8 bits per
            channel, or is a colour image where `num_channels` is 1.
    """
    with explain_missing():
        from PIL import ImageOps

    with _opened(encoded) as picture:
        if _num_channels(picture, encoded.name) > num_channels:
            raise DataError(
                f"images of a gray set must be gray; got {encoded.name} of mode {picture.mode}; "
                "convert it to gray, or the set to RGB"
            )
        ImageOps.exif_transpose(picture, in_place=True)
        opaque = _drop_alpha(picture, encoded.name)
        if num_channels == 1:
            return np.asarray(opaque.convert("L"))[None]  # (1, H, W)
        return np.asarray(opaque.convert("RGB")).transpose(2, 0, 1)  # (3, H, W)


@contextmanager
def _opened(encoded: EncodedImage) -> Iterator[Image.Image]:
    """Open with Pillow, whose readers meet corrupt bytes with any exception; name the image in each."""
    with explain_missing():
        from PIL import Image, UnidentifiedImageError

    content = encoded.content
    try:
        with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as picture:
            yield picture
    except (DataError, MemoryError):
        raise
    except Exception as error:
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"images must be whole and readable; got {encoded.name} ({reason}); "
            'replace or remove it, or pass on_bad_image="skip"'
        ) from error


def _num_channels(picture: Image.Image, name: str) -> int:
    if picture.mode in _GRAY_MODES:
        return 1
    if picture.mode in _COLOUR_MODES:
        return 3
    raise DataError(
        f"images must have 8 bits per channel, gray or colour; got {name} of mode {picture.mode}; "
        "convert it to 8-bit gray or RGB"
    )


def _drop_alpha(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode not in _ALPHA_MODES and "transparency" not in picture.info:
        return picture
    picture = picture.convert("RGBA")
    lowest_alpha = np.asarray(picture.getchannel("A")).min()
    if lowest_alpha < 255:
        raise DataError(
            f"images must be opaque; got {name} with alpha down to {lowest_alpha} of 255; "
            "flatten it onto a background first"
        )
    return picture
