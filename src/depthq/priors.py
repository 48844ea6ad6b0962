"""p(codes): what codes cost. Here the prior that knows nothing; one that is trained keeps the same contract."""

import math
from typing import Protocol

import torch
from torch import Tensor

from depthq.codes import Codes


class Prior(Protocol):
    """A distribution over the codes of an image."""

    def nll_nats(self, codes: Codes) -> Tensor:
        """Cost of the codes of each image: float64 (B,), -log p(codes) in nats, all levels together."""
        ...


class UniformPrior:
    """All codes alike: log K nats per code of a codebook of size K, the paper's KL = M log K at each position.

    Example:
        >>> UniformPrior().nll_nats(Codes((torch.zeros(2, 5, 8, 8, dtype=torch.int64),), ((128,) * 5,)))
        tensor([1552.6497, 1552.6497], dtype=torch.float64)
    """

    def nll_nats(self, codes: Codes) -> Tensor:
        """As `Prior.nll_nats`: the same for all images of the batch."""
        nats = sum(
            math.prod(level.shape[2:]) * sum(map(math.log, sizes))
            for level, sizes in zip(codes.levels, codes.codebook_sizes, strict=True)
        )
        return torch.full((len(codes),), nats, dtype=torch.float64, device=codes.levels[0].device)
