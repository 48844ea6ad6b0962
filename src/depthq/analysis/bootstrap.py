"""Intervals for entropy and mutual information, by drawing the sample again."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from depthq.analysis.counting import CodeArray, as_counts
from depthq.analysis.entropy import EntropyEstimator, check_estimator, entropy_nats
from depthq.units import nats_to_bits

ESTIMATORS = ("plugin", "miller_madow")
COUNTS_PER_CELL = 5  # whatever the estimator: fewer, and what resampling shows of its bias is not its bias


@dataclass(frozen=True)
class Interval:
    """An estimate, and the interval that covers the truth in a share `confidence` of samples.

    The interval lies around the estimate less its bias. A plug-in estimate may therefore lie outside of its own
    interval: its bias is then larger than its scatter.
    """

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
    counts: CodeArray,
    statistic_nats: Callable = entropy_nats,
    estimator: EntropyEstimator = "miller_madow",
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
    that the sample missed. There, 90 % intervals for the mutual information of strongly dependent codes held the
    truth in 77 to 88 % of samples (tables of 4 x 4 to 64 x 64), and of independent ones nearly always; those for
    the entropy of a few thousand codes, many of them rare, in only 42 % (plug-in) and 68 % (Miller-Madow). From
    one count per cell of 64 x 64, none did.

    The unit drawn is one count. That is right for independent samples. Positions of one image are not
    independent: for counts over all positions the true interval is wider, at worst as if there were one
    sample per image; counts of a single position over images are independent where images are.

    Args:
        counts: integers (K,) for `entropy_nats`, (K_a, K_b) for `mutual_information_nats`.
        statistic_nats: `entropy_nats` or `mutual_information_nats`, or any function of (counts, estimator) that is
            never negative and has a "plugin" estimator.
        estimator: Of the statistic, "plugin" or "miller_madow". "shuffle" is refused: its errors on samples drawn
            again are not those on the sample.
        num_resamples: At least 2; each costs one pass over the table.
        confidence: In (0, 1).
        seed: Of the draws.

    Raises:
        ValueError: If counts are all zero or not integers of at least 0, or an argument is out of range.

    Warns:
        UserWarning: If there are too few counts per cell in use, with the bias to expect.
    """
    check_estimator(estimator, ESTIMATORS)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}")
    if num_resamples < 2:
        raise ValueError(f"num_resamples must be at least 2; got {num_resamples}")
    counts = as_counts(counts).cpu()
    estimate, truth = float(statistic_nats(counts, estimator)), float(statistic_nats(counts, "plugin"))
    _warn_if_undersampled(counts)
    rng = np.random.default_rng(seed)
    errors = [float(statistic_nats(_resample(counts, rng), estimator)) - truth for _ in range(num_resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(errors, [tail, 1 - tail])
    lower, upper = (max(0.0, float(estimate - error)) for error in (high, low))
    return Interval(estimate, lower, upper, confidence)


def _warn_if_undersampled(counts: Tensor) -> None:
    total, used = int(counts.sum()), int((counts > 0).sum())
    if total < COUNTS_PER_CELL * used:
        axes = range(counts.dim())
        in_use = [int((counts.movedim(axis, 0).reshape(counts.shape[axis], -1) > 0).any(1).sum()) for axis in axes]
        bias = math.prod(number - 1 for number in in_use) / (2 * total)
        warnings.warn(
            f"bootstrap_interval has only {total} counts for {used} cells in use: the plug-in estimate is off by about "
            f"{bias:.3g} nats, of which resampling takes only a part away, so that the interval may miss the truth; "
            f"it holds from about {COUNTS_PER_CELL * used} counts",
            UserWarning,
            stacklevel=3,
        )


def _resample(counts: Tensor, rng: np.random.Generator) -> Tensor:
    occupied = counts > 0  # empty cells stay empty, and are most of a large table
    cells = counts[occupied].numpy()
    drawn = torch.zeros_like(counts)
    drawn[occupied] = torch.from_numpy(rng.multinomial(cells.sum(), cells / cells.sum()))
    return drawn
