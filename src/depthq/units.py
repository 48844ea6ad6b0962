"""Units of information: the only place that knows ln 2.

Everything inside the package is in nats; whatever leaves it in another unit passes through here, and carries the
unit in its name.
"""

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Nats = TypeVar("Nats", float, "Tensor", "np.ndarray")

LN2 = math.log(2.0)


def nats_to_bits(nats: Nats) -> Nats:
    """Bits in `nats` (a number, array or tensor; returned as the same kind)."""
    return nats / LN2


def bits_per_dim(bits_per_image: float, image_shape: tuple[int, int, int]) -> float:
    """Bits per sub-pixel of an image of `image_shape` (C, H, W) that costs `bits_per_image`."""
    channels, height, width = image_shape
    return bits_per_image / (channels * height * width)


def bits_per_pixel(bits_per_image: float, image_shape: tuple[int, int, int]) -> float:
    """Bits per pixel (all channels together) of an image of `image_shape` (C, H, W) that costs `bits_per_image`."""
    _, height, width = image_shape
    return bits_per_image / (height * width)
