"""How evenly codes are used."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def count_codes(codes: Tensor, codebook_sizes: Sequence[int]) -> Tensor:
    """How often each code occurs.

    Args:
        codes: int64 (B, M, ...); code -1 marks a masked position, and is not counted.
        codebook_sizes: K_m of each codebook.

    Returns:
        int64 (M, max K_m); entries at or beyond K_m are zero.
    """
    width = max(codebook_sizes, default=0)
    counts = torch.zeros(len(codebook_sizes), width, dtype=torch.int64, device=codes.device)
    for row, codes_of_one in zip(counts, codes.unbind(1), strict=True):
        row += torch.bincount(codes_of_one[codes_of_one >= 0], minlength=width)
    return counts


@dataclass(frozen=True)
class CodebookUsage:
    """How evenly the codes of each codebook are used, from counts over a sample.

    Each field has one entry per codebook. For unbiased estimates on small samples see `depthq.analysis`.
    """

    entropy_nats: Tensor
    """Plug-in entropy of one code, 0..log K."""
    perplexity: Tensor
    """exp(entropy in nats): the number of codes effectively used, 1..K."""
    usage: Tensor
    """Share of the K codes that occur at all, 0..1."""

    @staticmethod
    def from_counts(counts: Tensor, codebook_sizes: Sequence[int]) -> "CodebookUsage":
        """From counts (M, max K_m), as `count_codes` gives them; a codebook without counts has entropy 0."""
        total = counts.sum(1, keepdim=True).clamp(min=1)
        probabilities = counts.double() / total
        entropy_nats = torch.special.entr(probabilities).sum(1)
        usage = (counts > 0).sum(1).double() / torch.tensor(codebook_sizes, device=counts.device)
        return CodebookUsage(entropy_nats, entropy_nats.exp(), usage)
