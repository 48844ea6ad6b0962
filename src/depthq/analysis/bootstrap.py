"""Intervals for entropy and mutual information, by drawing the sample again."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from depthq.analysis.entropy import entropy_nats
from depthq.units import nats_to_bits


@dataclass(frozen=True)
class Interval:
    """An estimate, and the interval that covers the truth in a share `confidence` of samples."""

    estimate_nats: float
    lower_nats: float
    upper_nats: float
    confidence: float

    @property
    def estimate_bits(self) -> float:
        return nats_to_bits(self.estimate_nats)

    @property
    def lower_bits(self) -> float:
        return nats_to_bits(self.lower_nats)

    @property
    def upper_bits(self) -> float:
        return nats_to_bits(self.upper_nats)


def bootstrap_interval(
    counts: Tensor,
    statistic_nats: Callable = entropy_nats,
    estimator: str = "miller_madow",
    *,
    num_resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval for an entropy or a mutual information, from its table of counts alone.

    Samples of the same size are drawn from the observed shares; the errors that the estimator makes on them,
    for which the truth is known, are taken off the estimate (the "basic" bootstrap). This removes most of the
    estimator's bias too. As neither entropy nor mutual information is negative, the interval ends at 0.

    The table must be sampled well, from about five counts per cell in use: resampling cannot know of cells
    that the sample missed.

    The unit drawn is one count. That is right for independent samples. Positions of one image are not
    independent: for counts over all positions the true interval is wider, at worst as if there were one
    sample per image; counts of a single position over images are independent where images are.

    Args:
        counts: int64 (K,) for `entropy_nats`, (K_a, K_b) for `mutual_information_nats`.
        statistic_nats: `entropy_nats` or `mutual_information_nats`, or any function of (counts, estimator) that is
            never negative and has a "plugin" estimator.
        estimator: Of the statistic.
        num_resamples: At least 2; each costs one pass over the table.
        confidence: In (0, 1).
        seed: Of the draws.

    Raises:
        ValueError: If counts are all zero, or an argument is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}")
    if num_resamples < 2:
        raise ValueError(f"num_resamples must be at least 2; got {num_resamples}")
    counts = counts.cpu()
    estimate, truth = float(statistic_nats(counts, estimator)), float(statistic_nats(counts, "plugin"))
    rng = np.random.default_rng(seed)
    errors = [float(statistic_nats(_resample(counts, rng), estimator)) - truth for _ in range(num_resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(errors, [tail, 1 - tail])
    lower, upper = (max(0.0, float(estimate - error)) for error in (high, low))
    return Interval(estimate, lower, upper, confidence)


def _resample(counts: Tensor, rng: np.random.Generator) -> Tensor:
    occupied = counts > 0  # empty cells stay empty, and are most of a large table
    cells = counts[occupied].numpy()
    drawn = torch.zeros_like(counts)
    drawn[occupied] = torch.from_numpy(rng.multinomial(cells.sum(), cells / cells.sum()))
    return drawn
