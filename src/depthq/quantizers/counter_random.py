"""Random numbers that are a function of a counter: no generator state, the same in every process and after a resume."""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def random_int32(counter: Tensor) -> Tensor:
    """Well-mixed values in [0, 2^32), int64 as `counter`; counters that agree in their low 32 bits give the same."""
    x = counter & _MASK
    for multiplier in (0x7FEB352D, 0x2C1B3C6D):  # below 2^31, so that no product overflows
        x = ((x ^ (x >> 16)) * multiplier) & _MASK
    return x ^ (x >> 15)


def random_uniform(counter: Tensor) -> Tensor:
    """float64 in [0, 1), one per counter."""
    return random_int32(counter).to(torch.float64) / 2**32
