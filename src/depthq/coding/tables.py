"""Stored functions: integers that are the same on every machine, made of Python's own whole numbers."""

from decimal import Context, Decimal
from functools import lru_cache

import torch
from torch import Tensor

WEIGHT_BITS = 20
"""exp(-x) is stored in units of 2^-20."""
CUMULATIVE_BITS = 24
"""The logistic function is stored in units of 2^-24."""
STEPS_PER_UNIT = 32
"""Logits and log scales lie on a grid of 1/32."""
PLACES_PER_SCALE = 2048
"""The logistic function is stored at multiples of 1/2048 of a scale, up to 16 scales from the mean."""
LARGEST_LOG_SCALE = 7 * STEPS_PER_UNIT
INVERSE_BITS = 24

_FARTHEST = 16 * PLACES_PER_SCALE
_PRECISION = 96
_DIGITS = Context(prec=40)


@lru_cache(maxsize=1)
def exponential() -> Tensor:
    """floor(2^20 exp(-i / 32)), int64, up to where it is 0."""
    values = [value >> (_PRECISION - WEIGHT_BITS) for value in _powers(STEPS_PER_UNIT, 14 * STEPS_PER_UNIT)]
    return torch.tensor([*values, 0])


@lru_cache(maxsize=1)
def logistic() -> Tensor:
    """2^24 / (1 + exp(-z)), int32 (half the memory, twice as many in a cache), at z = (i - 16 * 2048) / 2048."""
    one = 1 << _PRECISION
    below = [(power << CUMULATIVE_BITS) // (one + power) for power in _powers(PLACES_PER_SCALE, _FARTHEST + 1)]
    above = [(1 << CUMULATIVE_BITS) - value for value in below]
    return torch.tensor([*reversed(below), *above[1:]], dtype=torch.int32)


@lru_cache(maxsize=1)
def inverse_scales(places_per_unit: int) -> Tensor:
    """Of log scales -7 to 7 in steps of 1/32: 2^24 * 2048 / (places_per_unit * scale), rounded, int64.

    A distance in units of 1 / places_per_unit, times this, shifted by 24 bits, is one in units of 1/2048 of a scale.
    """
    largest = LARGEST_LOG_SCALE
    values = []
    for log_scale in range(-largest, largest + 1):
        scale = _DIGITS.exp(Decimal(log_scale) / STEPS_PER_UNIT)
        values.append(int((Decimal(PLACES_PER_SCALE << INVERSE_BITS) / (places_per_unit * scale)).to_integral_value()))
    return torch.tensor(values)


def logistic_at(distance: Tensor) -> Tensor:
    """`logistic` of distances int64 in units of 1/2048 of a scale: int64 in 0..2^24."""
    places = distance.clamp_(-_FARTHEST, _FARTHEST).add_(_FARTHEST)
    return logistic().index_select(0, places.flatten()).view(places.shape).long()


def _powers(steps_per_unit: int, count: int) -> list[int]:
    """exp(-i / steps_per_unit) in units of 2^-96, one by one: each step loses less than such a unit."""
    ratio = int(_DIGITS.exp(Decimal(-1) / steps_per_unit) * (1 << _PRECISION))
    powers = [1 << _PRECISION]
    while len(powers) < count:
        powers.append(powers[-1] * ratio >> _PRECISION)
    return powers
