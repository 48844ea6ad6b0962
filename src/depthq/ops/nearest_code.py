"""Nearest codeword of each latent vector, for all codebooks at once."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def nearest_code(
    latents: Tensor,
    codebooks: Tensor,
    *,
    codebook_sizes: Sequence[int] | None = None,
    backend: str | None = None,
) -> Tensor:
    """Codes int64 (M, N) of the codewords (M, K, D) that are L2-nearest to the latents (M, N, D)."""
    sizes = codebook_sizes or [codebooks.shape[1]] * codebooks.shape[0]
    rows = []
    for x, codebook, size in zip(latents, codebooks, sizes, strict=True):
        words = codebook[:size].double()
        scores = torch.addmm(words.square().sum(1).mul(0.5), x.double(), words.T, alpha=-1)
        rows.append(scores.argmin(1))
    return torch.stack(rows)
