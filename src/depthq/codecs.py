"""What images take as PNG files, and as JPEG files of the quality that a model reaches: what its codes stand beside."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthq.extras import explain_missing
from depthq.pixels import psnr_db, to_picture

SMALL_SIDE = 64
"""Pixels. Smaller images share a file, one below the other, as its header would else be most of it."""
_JPEG_QUALITIES = range(1, 101)
_LONGEST_SIDE = 65_500
"""Pixels, of a JPEG file as libjpeg writes it. What is longer goes into several files."""


@dataclass(frozen=True)
class BesideCodecs:
    """Bits per pixel of the same images."""

    images: int
    psnr_db: float
    """Of the model, mean over files."""
    png_bits_per_pixel: float
    jpeg_bits_per_pixel: float
    """At the model's PSNR in every file, between the two qualities that enclose it."""
    jpeg_reaches: bool
    """Whether JPEG reaches that PSNR for all of them; else its best, or its worst, quality stands for it."""


@dataclass(frozen=True)
class ComparedRates:
    """What a model's codes take, bits per pixel, beside the same images as files of codecs."""

    uniform_bits_per_pixel: float
    """If all codes are alike."""
    prior_bits_per_pixel: float | None
    """Under the model's prior; None without one."""
    codecs: BesideCodecs


def beside_codecs(pairs: Iterable[tuple[Tensor, Tensor]]) -> BesideCodecs:
    """Write images as PNG and JPEG.

    Args:
        pairs: Originals and the model's reconstructions, both uint8 (B, C, H, W); each pair of one size.

    Raises:
        ValueError: If there are no images.
    """
    images, pixels, png_bytes, jpeg_bytes, qualities_db, reaches = 0, 0, 0, 0.0, [], True
    for originals, reconstructions in pairs:
        images += len(originals)
        pixels += originals[:, 0].numel()
        for original, reconstruction in zip(_files(originals), _files(reconstructions), strict=True):
            quality_db = float(psnr_db(reconstruction[None].float(), original[None].float()))
            size, reached = jpeg_bytes_at(original, quality_db)
            png_bytes += encoded_bytes(original, format="PNG")
            jpeg_bytes += size
            qualities_db.append(quality_db)
            reaches &= reached
    if not images:
        raise ValueError("pairs must hold at least one image; got none")
    return BesideCodecs(
        images, sum(qualities_db) / len(qualities_db), 8 * png_bytes / pixels, 8 * jpeg_bytes / pixels, reaches
    )


def jpeg_bytes_at(image: Tensor, quality_db: float) -> tuple[float, bool]:
    """The bytes of a JPEG file of that PSNR, linearly between the two qualities that enclose it; and whether any do.

    Args:
        image: uint8 (C, H, W).
        quality_db: PSNR in dB.
    """
    low, high = _JPEG_QUALITIES[0], _JPEG_QUALITIES[-1]
    at_low, at_high = _jpeg(image, low), _jpeg(image, high)
    if not at_low[1] <= quality_db <= at_high[1]:
        return (at_low if quality_db < at_low[1] else at_high)[0], False
    while high - low > 1:
        middle = (low + high) // 2
        at_middle = _jpeg(image, middle)
        if at_middle[1] <= quality_db:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    share = (quality_db - at_low[1]) / (at_high[1] - at_low[1]) if at_high[1] > at_low[1] else 0.0
    return at_low[0] + share * (at_high[0] - at_low[0]), True


def encoded_bytes(image: Tensor, **options: Any) -> int:
    """The size of a file of an image uint8 (C, H, W), as Pillow writes it with these options."""
    return len(_encoded(image, **options))


def _jpeg(image: Tensor, quality: int) -> tuple[int, float]:
    """Bytes and PSNR in dB, with Pillow's usual halved chroma."""
    with explain_missing():
        from PIL import Image

    content = _encoded(image, format="JPEG", quality=quality, optimize=True)
    with Image.open(io.BytesIO(content)) as picture:
        decoded = torch.from_numpy(np.array(picture)).view(*image.shape[1:], -1).permute(2, 0, 1)
    return len(content), float(psnr_db(decoded[None].float(), image[None].float()))


def _encoded(image: Tensor, **options: Any) -> bytes:
    stream = io.BytesIO()
    to_picture(image).save(stream, **options)
    return stream.getvalue()


def _files(images: Tensor) -> list[Tensor]:
    files = [torch.cat(list(images), dim=1)] if min(images.shape[2:]) < SMALL_SIDE else list(images)
    return [piece for file in files for rows in _pieces(file, 1) for piece in _pieces(rows, 2)]


def _pieces(image: Tensor, axis: int) -> tuple[Tensor, ...]:
    """As few as can be files, and as even."""
    return image.chunk(-(-image.shape[axis] // _LONGEST_SIDE), axis)
