"""Rows far from each other, to start codebooks from: greedy k-means++ (Arthur and Vassilvitskii, 2007)."""

import torch
from torch import Tensor


def kmeans_plus_plus(latents: Tensor, uniforms: Tensor) -> Tensor:
    """For each codebook K rows, one after the other, each the best of T candidates.

    Candidates are drawn with probability proportional to their squared distance to the rows before; the best is the
    one that leaves the least sum of squared distances. Time N M K D T, memory N M T.

    Args:
        latents: float32 (M, N, D), N at least 1.
        uniforms: (M, K, T) random numbers in [0, 1): the only source of randomness.

    Returns:
        int64 (M, K) in [0, N); without repetition while there are rows that differ from all before.
    """
    latents = latents.contiguous()
    squares = latents.square().sum(2)  # (M, N)
    codebook = torch.arange(len(latents), device=latents.device)
    distance = torch.ones_like(squares)  # nothing chosen yet: all rows are alike
    chosen = []
    for draws in uniforms.unbind(1):  # (M, T)
        cumulative = distance.cumsum(1, dtype=torch.float64)
        candidates = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)
        candidates = candidates.clamp(max=latents.shape[1] - 1)
        remaining = _squared_distances(latents, squares, candidates)  # (M, T, N)
        if chosen:
            remaining = torch.minimum(remaining, distance[:, None])
        best = remaining.sum(2).argmin(1)  # (M,)
        chosen.append(candidates[codebook, best])
        distance = remaining[codebook, best]
    return torch.stack(chosen, 1)


def _squared_distances(latents: Tensor, squares: Tensor, rows: Tensor) -> Tensor:
    """(M, T, N) from the latents at `rows` (M, T) to all; exactly 0 to themselves."""
    chosen = latents.gather(1, rows[..., None].expand(-1, -1, latents.shape[2]))  # (M, T, D)
    distances = torch.bmm(chosen, latents.transpose(1, 2)).mul_(-2)
    distances += squares[:, None] + squares.gather(1, rows)[..., None]
    return distances.clamp_(min=0).scatter_(2, rows[..., None], 0)
