"""Rows far from each other, to start codebooks from: k-means++ (Arthur and Vassilvitskii, 2007)."""

import torch
from torch import Tensor


def kmeans_plus_plus(latents: Tensor, uniforms: Tensor) -> Tensor:
    """For each codebook, K rows, each drawn with probability proportional to its squared distance to those before.

    Time N M K D, memory N M D.

    Args:
        latents: float32 (M, N, D), N at least 1.
        uniforms: (M, K) random numbers in [0, 1): the only source of randomness.

    Returns:
        int64 (M, K) in [0, N); without repetition while there are rows that differ from all before.
    """
    latents = latents.contiguous()
    num_codebooks, num_rows, _ = latents.shape
    codebook = torch.arange(num_codebooks, device=latents.device)
    squares = latents.square().sum(2)  # (M, N)
    chosen = (uniforms[:, 0] * num_rows).long()
    distance = torch.full_like(squares, torch.inf)
    rows = [chosen]
    for draws in uniforms[:, 1:].unbind(1):
        codeword = latents[codebook, chosen]  # (M, D)
        products = torch.bmm(latents, codeword[:, :, None])[:, :, 0]
        to_chosen = squares - 2 * products + squares.gather(1, chosen[:, None])
        distance = torch.minimum(distance, to_chosen.clamp(min=0))
        distance[codebook, chosen] = 0  # whatever rounding says
        cumulative = distance.cumsum(1, dtype=torch.float64)
        target = draws[:, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=num_rows - 1)
        rows.append(chosen)
    return torch.stack(rows, 1)
