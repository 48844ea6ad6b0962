"""Vectors on the unit sphere: where codes with `distance="cosine"` live."""

from typing import Literal

import torch
from torch import Tensor

Distance = Literal["euclidean", "cosine"]


def on_sphere(vectors: Tensor) -> Tensor:
    """Vectors (..., D) at length 1, with gradient; those of length 0 stay, and pass their gradient as it is."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.where(length > 0, 1.0)
