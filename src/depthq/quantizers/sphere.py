"""Vectors on the unit sphere: where codes with `distance="cosine"` live."""

from typing import Literal

import torch
from torch import Tensor

Distance = Literal["euclidean", "cosine"]


def on_sphere(vectors: Tensor) -> Tensor:
    """Vectors (..., D) at length 1, with gradient; those of length 0 stay, and pass their gradient as it is."""
    is_zero = (vectors == 0).all(-1, keepdim=True)
    # Masked before the norm, whose second derivative at 0 is NaN; the length of others may be 0, too, by underflow.
    length = torch.linalg.vector_norm(vectors.masked_fill(is_zero, 1.0), dim=-1, keepdim=True).masked_fill(is_zero, 1.0)
    return vectors / length.where(length > 0, 1.0)
