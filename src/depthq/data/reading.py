"""One encoded image -> uint8 pixels (C, H, W), or a `DataError` that names the image."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
_TIFF_BITS_PER_SAMPLE = 0x0102
_DEEP_LAYOUT = re.compile(r";(12|16[BLN])")
"""In what Pillow calls the layout of a file's bytes; 16 without the order of bytes is a pixel of 5, 6 and 5 bits."""
_HEADER_BYTES = 2**16
_PILLOWS_MOST_PIXELS = 2**30 // 4 // 3
_MOST_PIXELS = 2**30
"""Of an image: a small file may say that it is larger, to fill the memory. Pillow's own limit, where it is not set
otherwise, is a sixth of it."""
_MOST_TEXT_BYTES = 2**30
"""Of text in a PNG, which Pillow reads before it comes to the pixels, and else refuses above 1 MiB."""


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
        DataError: If the header cannot be read, or the image has more than 8 bits per channel or 2^30 pixels.
    """
    with explain_missing():
        from PIL import Image

    with _opened(encoded) as picture:
        width, height = picture.size
        with suppress(Exception):  # damaged EXIF turns nothing
            exif = Image.Image.getexif(picture)  # that of the PNG reader would read the pixels
            if exif.get(_EXIF_ORIENTATION, 1) >= 5:  # stored lying on its side
                width, height = height, width
        return _num_channels(picture, encoded), height, width


def has_more(encoded: EncodedImage) -> bool:
    """Whether the file holds further pages or frames, which `read_pixels` leaves; False of one that cannot be read.

    A second picture that a camera puts behind a JPEG, as a preview, is none.
    """
    try:
        with _opened(encoded) as picture:
            return picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    except DataError:
        return False


def read_pixels(encoded: EncodedImage, num_channels: int, background: str | None = None) -> np.ndarray:
    """The pixels, upright as EXIF says; of an animation the first frame, of several pages the first.

    Gray images are expanded where `num_channels` is 3; palette, CMYK and YCbCr become RGB; an alpha channel
    that is opaque throughout is dropped. What else a file says besides its pixels is of no matter, damaged or not.

    Args:
        encoded: The image.
        num_channels: 1 or 3.
        background: The colour that transparent images are laid on, as Pillow names it ("white", "#808080"); None:
            they are refused.

    Returns:
        uint8 (C, H, W).

    Raises:
        DataError: If the image cannot be read in full, is transparent anywhere, has more than 8 bits per
            channel or 2^30 pixels, or is a colour image where `num_channels` is 1.
    """
    with explain_missing():
        from PIL import ImageOps

    with _opened(encoded) as picture:
        if _num_channels(picture, encoded) > num_channels:
            raise DataError(
                f"images of a gray set must be gray; got {encoded.name} of mode {picture.mode}; "
                "convert it to gray, or the set to RGB"
            )
        with suppress(Exception):  # damaged EXIF turns nothing
            ImageOps.exif_transpose(picture, in_place=True)
        opaque = _opaque(picture, encoded.name, background)
        if num_channels == 1:
            return np.asarray(opaque.convert("L"))[None]  # (1, H, W)
        return np.asarray(opaque.convert("RGB")).transpose(2, 0, 1)  # (3, H, W)


@contextmanager
def _opened(encoded: EncodedImage) -> Iterator[Image.Image]:
    """Open with Pillow, whose readers meet corrupt bytes with any exception; name the image in each."""
    with explain_missing():
        from PIL import Image, PngImagePlugin, UnidentifiedImageError

    for subject in ("Corrupt EXIF", "Truncated File Read", "Metadata Warning"):  # they tell of metadata
        warnings.filterwarnings("ignore", subject, UserWarning)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    if Image.MAX_IMAGE_PIXELS == _PILLOWS_MOST_PIXELS:
        Image.MAX_IMAGE_PIXELS = _MOST_PIXELS // 2  # it warns of more, and refuses twice as many
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MOST_TEXT_BYTES
    content = encoded.content
    try:
        with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as picture:
            yield picture
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"images must have at most {2 * Image.MAX_IMAGE_PIXELS} pixels, lest a small file fill the memory; got "  # type: ignore[operator]
            f"{encoded.name} of more; cut it into pieces, or in Python set PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"images must be whole and readable; got {encoded.name} ({reason}); "
            'replace or remove it, or pass on_bad_image="skip"'
        ) from error


def _num_channels(picture: Image.Image, encoded: EncodedImage) -> int:
    deep = _is_deep(picture, encoded)
    if not deep and picture.mode in _GRAY_MODES:
        return 1
    if not deep and picture.mode in _COLOUR_MODES:
        return 3
    mode = f"mode {picture.mode}" + (" with more than 8" if picture.mode in _GRAY_MODES | _COLOUR_MODES else "")
    raise DataError(
        f"images must have 8 bits per channel, gray or colour; got {encoded.name} of {mode}; "
        "convert it to 8-bit gray or RGB"
    )


def _is_deep(picture: Image.Image, encoded: EncodedImage) -> bool:
    """Whether the file has more than 8 bits per channel, whatever Pillow makes of them."""
    bits_of_tiff = getattr(picture, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (8,))
    if max(bits_of_tiff) > 8:
        return True
    for decoder, _, _, layout in getattr(picture, "tile", ()):
        if _DEEP_LAYOUT.search(str(layout)):
            return True
        if decoder in ("ppm", "ppm_plain") and isinstance(layout, tuple) and layout[1] > 255:  # the largest value
            return True
    if picture.format == "JPEG2000":
        _, _, header = _start_of(encoded).partition(b"\xff\x4f\xff\x51")  # the size marker
        num_components = int.from_bytes(header[36:38], "big")
        return any(bits & 0x7F >= 8 for bits in header[38 : 38 + 3 * num_components : 3])
    if picture.format == "AVIF":
        configs = _start_of(encoded).split(b"av1C")[1:]
        return any(int.from_bytes(config[2:3]) & 0x40 for config in configs)  # its high_bitdepth
    return picture.format == "HEIF" and picture.info.get("bit_depth", 8) > 8  # as its plugin tells


def _start_of(encoded: EncodedImage) -> bytes:
    if isinstance(encoded.content, bytes):
        return encoded.content[:_HEADER_BYTES]
    with open(encoded.content, "rb") as file:
        return file.read(_HEADER_BYTES)


def _opaque(picture: Image.Image, name: str, background: str | None) -> Image.Image:
    from PIL import Image

    if picture.mode not in _ALPHA_MODES and "transparency" not in picture.info:
        return picture
    picture = picture.convert("RGBA")
    lowest_alpha = np.asarray(picture.getchannel("A")).min()
    if lowest_alpha == 255:
        return picture
    if background is None:
        raise DataError(
            f"images must be opaque; got {name} with alpha down to {lowest_alpha} of 255; "
            'flatten it onto a background first, or pass background="white"'
        )
    return Image.alpha_composite(Image.new("RGBA", picture.size, background), picture)


def check_background(background: str | None) -> None:
    """Raises ValueError unless it is a colour, or None."""
    if background is None:
        return
    with explain_missing():
        from PIL import ImageColor

    try:
        ImageColor.getrgb(background)
    except (ValueError, TypeError) as error:
        raise ValueError(f'background must be a colour such as "white" or "#808080"; got {background!r}') from error
