"""Segment sums: how many vectors chose each codeword, and their sum."""

import torch
from torch import Tensor


def segment_sums(latents: Tensor, codes: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Counts (M, K) and sums (M, K, D) of the latents (M, N, D) that chose each code (M, N)."""
    num_codebooks, _, dim = latents.shape
    counts = latents.new_zeros(num_codebooks, num_codes)
    sums = latents.new_zeros(num_codebooks, num_codes, dim)
    for m in range(num_codebooks):
        counts[m] = torch.bincount(codes[m], minlength=num_codes)
        sums[m].index_add_(0, codes[m], latents[m])
    return counts, sums
