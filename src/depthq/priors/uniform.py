"""The prior that knows nothing."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from depthq.codes import Codes
from depthq.priors.base import CodePrior, Grid, Group


class UniformPrior(CodePrior, kind="uniform"):
    """All codes alike: log K nats per code of a codebook of size K, the paper's KL = M log K at each position.

    Args:
        codebook_sizes: Per level, coarse to fine, K of each codebook.
        grids: Per level (H, W) of samples.

    Example:
        >>> prior = UniformPrior(((128,) * 5,), ((8, 8),))
        >>> prior.nll_nats(Codes((torch.zeros(2, 5, 8, 8, dtype=torch.int64),), ((128,) * 5,)))
        tensor([1552.6497, 1552.6497], dtype=torch.float64)
    """

    def _nll_nats(self, codes: Codes) -> Tensor:
        return uniform_nll_nats(codes)

    def walk(self, levels: Sequence[Tensor], grids: Sequence[Grid]) -> Iterator[Group]:
        """As `CodePrior.walk`: all codes of a position at once."""
        for level, (codes, sizes) in enumerate(zip(levels, self.codebook_sizes, strict=True)):
            logits = [torch.zeros(len(codes), size, dtype=torch.float64, device=codes.device) for size in sizes]
            for position in range(math.prod(grids[level])):
                yield Group(level, position, range(len(sizes)), logits)


def uniform_nll_nats(codes: Codes) -> Tensor:
    """What codes cost if all are alike, whatever their positions: float64 (B,), the same for all images, nats."""
    nats = sum(
        math.prod(level.shape[2:]) * sum(map(math.log, sizes))
        for level, sizes in zip(codes.levels, codes.codebook_sizes, strict=True)
    )
    return torch.full((len(codes),), nats, dtype=torch.float64, device=codes.levels[0].device)
