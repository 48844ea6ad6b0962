"""The axis along which features depend least on each other, measured (abstract, Sec. 4.2).

A split cuts a feature tensor into slices of neighbouring indices of one axis. It is a good split where
features of the same slice depend on each other much more than features of different slices do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from depthq.features.dependence import (
    MeasuredPairs,
    PairDependence,
    check_axis,
    check_choice,
    check_features,
    quantile_codes,
    varying_features,
)

LEAST_NATS = 1e-6  # stands in as divisor for an estimate of 0 or below
SAME_RATIO = 0.05  # splits whose ratios differ by less are as good as each other
# Of so many errors, what slices share is beyond noise. Errors from ten groups of samples are uncertain themselves, and
# the best of many splits is what noise shows at its luckiest: of two errors, 5 % of pure noise passed.
CLEAR_ERRORS = 5
WEAK_RATIO = 0.8  # above it features depend on those of other slices nearly as on those of their own


@dataclass(frozen=True)
class AxisSplit:
    """How dependent features are within and between the slices of one split."""

    axis: int
    num_slices: int
    within: PairDependence
    """Of two features of the same slice."""
    within_error_nats: float
    """Standard error over samples (jackknife) of the mutual information within."""
    between: PairDependence
    """Of two features of different slices."""
    ratio: float
    """Mutual information between / within: 0 for independent slices, 1 for a split that means nothing."""
    ratio_error: float
    """Standard error of the ratio over samples (jackknife)."""

    @property
    def is_measured(self) -> bool:
        """Features of the same slice clearly share something; a ratio to less than that means nothing."""
        return self.within.mutual_information_nats > CLEAR_ERRORS * self.within_error_nats


@dataclass(frozen=True)
class AxisRecommendation:
    """Which axis to split and into how many slices; `print` it for the reasons."""

    axis: int
    num_slices: int
    splits: tuple[AxisSplit, ...]
    """The numbers of all splits that were compared, by axis and number of slices."""
    doubts: tuple[str, ...]
    """Why the evidence is weak; empty where it is not."""

    @property
    def is_weak(self) -> bool:
        return bool(self.doubts)

    @property
    def split(self) -> AxisSplit:
        """The numbers of the recommended split."""
        return next(s for s in self.splits if (s.axis, s.num_slices) == (self.axis, self.num_slices))

    def __str__(self) -> str:
        lines = [f"Split axis {self.axis} into {self.num_slices} slices."]
        lines += [f"The evidence is weak: {doubt}." for doubt in self.doubts]
        lines += ["axis  slices  within (nats)  between (nats)  between/within"]
        for split in self.splits:
            within, between = split.within.mutual_information_nats, split.between.mutual_information_nats
            mark = "  <-" if split is self.split else ""
            lines.append(
                f"{split.axis:4d}  {split.num_slices:6d}  {within:13.4f}  {between:14.4f}  "
                f"{split.ratio:6.3f} +- {split.ratio_error:.3f}{mark}"
            )
        return "\n".join(lines)


def recommend_axis(
    features: Tensor | np.ndarray,
    *,
    axes: Sequence[int] | None = None,
    max_slices: int = 16,
    encode: Callable[[Tensor], Tensor] = quantile_codes,
    max_features: int = 256,
    seed: int = 0,
) -> AxisRecommendation:
    """The axis of weak statistical dependence, and into how many slices to split it.

    Mutual information is estimated for all pairs of a random choice of features, by quantizing each and
    counting over samples. For each axis and each number of slices that divides it, its mean over pairs of
    different slices is set against its mean over pairs of the same slice. Splits whose slices share nothing
    beyond noise are left out, unless all are so. The lowest ratio wins; among splits of that axis that are as good,
    higher by at most 0.05 even with two standard errors on top, the one with the most slices, because codewords then
    multiply (K^M) while codebooks only add up (K M). To weigh the codes of a vector quantizer, count them with
    `CodeCounts` instead.

    Args:
        features: float (B, C, *positions), B >= 20 independent samples.
        axes: Those to compare, all but 0 by default.
        max_slices: The most slices to consider.
        encode: Quantizes the chosen features, float (B, F) -> integers (B, F), each column by itself.
        max_features: F, how many features to choose.
        seed: Of the choice. Errors are over samples alone: with few of many features chosen, another seed may give
            another ratio by more than its error.

    Raises:
        ValueError: If features are not finite floats, too few, an axis is out of range, a maximum is below 2, or no
            axis can be split.
    """
    features = check_features(features)
    check_choice(max_slices=max_slices, max_features=max_features)
    if isinstance(axes, int):
        raise ValueError(f"axes must be a list of axes; got {axes}; pass [{axes}]")
    axes = list(range(1, features.dim())) if axes is None else [check_axis(axis, features.dim()) for axis in axes]
    if not axes:
        raise ValueError("axes must hold at least one axis; got none; leave it out for all")
    columns, places = _choose_features(features, max_features, seed)
    pairs = MeasuredPairs(columns, encode)
    measured = []
    for axis in axes:
        length = features.shape[axis]
        for num_slices in (n for n in range(2, min(length, max_slices) + 1) if length % n == 0):
            measured += _measure_split(axis, num_slices, places[:, axis - 1] * num_slices // length, pairs)
    if not measured:
        raise ValueError(
            f"features must have an axis among {axes} that 2 to {max_slices} slices divide, with several "
            f"features in a slice; got shape {tuple(features.shape)}"
        )
    recommendation = _recommend(measured, pairs)
    return replace(
        recommendation, doubts=(*recommendation.doubts, *_doubt_of_limit(recommendation, features.shape, max_slices))
    )


def _choose_features(features: Tensor, max_features: int, seed: int) -> tuple[Tensor, Tensor]:
    """Values (B, F), and places (F, rank - 1), of features chosen at random among those that vary."""
    flat = features.flatten(1)
    varying = varying_features(flat)
    order = torch.randperm(len(varying), generator=torch.Generator().manual_seed(seed), device="cpu")
    chosen = varying[order[:max_features].to(varying.device)].sort().values
    places = torch.stack(torch.unravel_index(chosen, features.shape[1:]), dim=1)
    return flat[:, chosen].float(), places


def _measure_split(axis: int, num_slices: int, slices: Tensor, pairs: MeasuredPairs) -> list[tuple[AxisSplit, Tensor]]:
    """The split, and its ratio without each group of samples (G,); empty if it has no pairs to compare."""
    same = slices[:, None] == slices[None, :]
    within, between = same & ~torch.eye(len(slices), dtype=torch.bool, device=slices.device), ~same
    if not (within.any() and between.any()):
        return []
    within_nats, between_nats = (pairs.information_nats[:, kind].mean(1) for kind in (within, between))
    ratio = between_nats / within_nats.clamp(min=LEAST_NATS)
    split = AxisSplit(
        axis=axis,
        num_slices=num_slices,
        within=pairs.mean(within),
        within_error_nats=_jackknife_error(within_nats[1:]),
        between=pairs.mean(between),
        ratio=float(ratio[0]),
        ratio_error=_jackknife_error(ratio[1:]),
    )
    return [(split, ratio[1:])]


def _jackknife_error(replicates: Tensor) -> float:
    groups = len(replicates)
    return float(((groups - 1) / groups * (replicates - replicates.mean()).square().sum()).sqrt())


def _recommend(measured: list[tuple[AxisSplit, Tensor]], pairs: MeasuredPairs) -> AxisRecommendation:
    candidates = [each for each in measured if each[0].is_measured] or measured
    # Two errors on top, so that among splits without any dependence no accident of noise looks lowest.
    lowest, lowest_replicates = min(candidates, key=lambda each: each[0].ratio + 2 * each[0].ratio_error)
    as_good, rival_axes = [], set()
    for split, replicates in candidates:
        # The error of the difference: both ratios rest on the same samples.
        excess, error = split.ratio - lowest.ratio, _jackknife_error(replicates - lowest_replicates)
        if split.axis == lowest.axis and excess + 2 * error <= SAME_RATIO:  # surely: no error may speak for a split
            as_good.append(split)
        elif split.axis != lowest.axis and excess <= max(SAME_RATIO, 2 * error):  # perhaps: enough for a doubt
            rival_axes.add(split.axis)
    best = max(as_good, key=lambda split: split.num_slices)
    splits = tuple(split for split, _ in measured)
    return AxisRecommendation(best.axis, best.num_slices, splits, tuple(_doubts(best, sorted(rival_axes), pairs)))


def _doubts(best: AxisSplit, rival_axes: list[int], pairs: MeasuredPairs) -> list[str]:
    doubts, error = [], best.ratio_error
    if pairs.num_samples < pairs.samples_needed:
        doubts.append(
            f"{pairs.num_samples} samples are few; {pairs.num_codes} codes per feature ask for {pairs.samples_needed}"
        )
    if not best.is_measured:
        within, within_error = best.within.mutual_information_nats, best.within_error_nats
        doubts.append(
            f"features of the same slice share no more than noise may show, {within:.2g} +- {within_error:.2g} nats"
        )
    if best.ratio + 2 * error > WEAK_RATIO:
        doubts.append(
            f"what features of different slices share is {best.ratio:.2f} +- {error:.2f} times what "
            "features of the same slice share, not clearly less"
        )
    if rival_axes:
        doubts.append(f"axis {' and '.join(map(str, rival_axes))} would do as well")
    return doubts


def _doubt_of_limit(recommendation: AxisRecommendation, shape: Sequence[int], max_slices: int) -> list[str]:
    """Whether more slices than were tried may do better: those of the recommended axis did so as far as they went."""
    best, length = recommendation.split, shape[recommendation.axis]
    tried = [split.num_slices for split in recommendation.splits if split.axis == best.axis]
    if best.num_slices < max(tried) or not any(length % n == 0 for n in range(max_slices + 1, length + 1)):
        return []
    return [f"more than {max_slices} slices of axis {best.axis} were not tried, and may do as well; raise max_slices"]
