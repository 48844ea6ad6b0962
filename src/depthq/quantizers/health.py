"""Whether codebooks are alive, at a glance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from depthq.codes import CodebookUsage

COLLAPSED_PERPLEXITY = 0.1
"""Share of K below which a codebook's perplexity counts as collapse."""

USED = 0.1
"""Share of the mean count from which on a code counts as used."""


@dataclass(frozen=True)
class CodebookHealth:
    """How M codebooks have been used of late in training; `print` it for a table. One entry per codebook each."""

    codebook_sizes: tuple[int, ...]
    """K_m."""
    usage: Tensor
    """Share of the codes that get at least a tenth of the mean count, 0..1, by a moving average of the true counts."""
    perplexity: Tensor
    """exp(entropy in nats) of that moving average, 1..K."""
    redrawn: Tensor
    """int64, how many codes were re-drawn in the last 100 steps; initialisation counts as re-drawing all. 0 where
    codewords are fixed."""
    mean_norm: Tensor
    """Mean L2 norm of the codewords."""
    is_trained: Tensor
    """bool, whether it has seen a training step of late: else there is nothing to tell."""

    @staticmethod
    def from_counts(
        counts: Tensor, redrawn: Tensor, mean_norm: Tensor, codebook_sizes: tuple[int, ...]
    ) -> "CodebookHealth":
        """From smoothed counts (M, max K_m), zero where there is no code."""
        total = counts.sum(1, keepdim=True)
        sizes = torch.tensor(codebook_sizes, device=counts.device)
        shares = counts / total.where(total > 0, 1)
        usage = (shares >= USED / sizes[:, None].float()).sum(1).float() / sizes
        perplexity = CodebookUsage.from_counts(shares, codebook_sizes).perplexity
        return CodebookHealth(codebook_sizes, usage, perplexity, redrawn, mean_norm, is_trained=total[:, 0] > 0)

    @property
    def collapsed(self) -> Tensor:
        """bool (M,), True where perplexity is below a tenth of K in training."""
        sizes = torch.tensor(self.codebook_sizes, device=self.perplexity.device)
        return self.is_trained & (self.perplexity < COLLAPSED_PERPLEXITY * sizes)

    def __str__(self) -> str:
        lines = ["codebook    size   usage  perplexity  re-drawn in 100 steps  mean norm"]
        columns = (self.usage, self.perplexity, self.redrawn, self.mean_norm, self.collapsed, self.is_trained)
        rows = zip(self.codebook_sizes, *(column.tolist() for column in columns), strict=True)
        for codebook, (size, usage, perplexity, redrawn, norm, collapsed, is_trained) in enumerate(rows):
            if is_trained:
                line = f"{codebook:8}{size:8}{usage:8.1%}{perplexity:12.1f}{redrawn:23}{norm:11.3g}"
                lines.append(line + ("  collapsed" if collapsed else ""))
            else:
                lines.append(f"{codebook:8}{size:8}{'-':>8}{'-':>12}{'-':>23}{norm:11.3g}  not trained yet")
        return "\n".join(lines)
