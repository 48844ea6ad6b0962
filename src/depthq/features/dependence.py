"""Dependence between features that were never quantized: correlation, and mutual information of their codes.

A feature is one channel at one position; its samples are the images. Entropy and mutual information of
continuous values need a quantizer as density estimator (Sec. 4.2): quantile bins here, or any other that is
passed in.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from depthq.analysis.counting import as_integer_tensor, as_tensor
from depthq.analysis.entropy import entropy_nats

SAMPLES_PER_CELL = 5  # fewer leave a visible bias in mutual information
NUM_GROUPS = 10  # of samples, each left out once for an error estimate
TABLE_CELLS_AT_ONCE = 2**20  # per group
FEATURES_AT_ONCE = 64


@dataclass(frozen=True)
class PairDependence:
    """Mean dependence over many pairs of features."""

    mutual_information_nats: float
    """Of their codes, Miller-Madow corrected: about 0 for independent features, and then of either sign."""
    squared_correlation: float
    """Of their values, less what independent features would show; blind to all but linear dependence."""


@dataclass(frozen=True)
class FeatureDependence:
    """Whether features depend on each other more across positions or across channels."""

    within_channel: PairDependence
    """Same channel, different positions."""
    within_position: PairDependence
    """Same position, different channels."""
    across_both: PairDependence
    """Different channels and different positions."""


def quantile_codes(features: Tensor | np.ndarray, num_bins: int = 4) -> Tensor:
    """Quantize each feature by itself, into bins that hold equal shares of its samples.

    Mutual information of such codes does not change under any increasing map of a feature. Equal values share
    a bin, so that a feature that is often exactly 0 (after a ReLU) occupies fewer bins; 0 has one to itself where
    it fills one.

    Args:
        features: float (B, ...), one feature per place, samples on axis 0.
        num_bins: 2 or more.

    Returns:
        int64, as features, in [0, num_bins).

    Raises:
        ValueError: If features are empty or not finite, or num_bins is below 2.
    """
    if num_bins < 2:
        raise ValueError(f"num_bins must be at least 2; got {num_bins}")
    features = as_tensor(features)
    if len(features) == 0:
        raise ValueError(f"features must hold at least one sample; got shape {tuple(features.shape)}")
    _check_finite(features)
    ranked = features.sort(dim=0).values
    edges = [ranked[len(ranked) * upper // num_bins] for upper in range(1, num_bins)]
    # Where the lowest value fills whole bins it is an edge itself, and must not pass for what lies above it.
    return torch.stack([(features >= edge) & (features > ranked[0]) for edge in edges]).sum(0)


def axis_correlation(features: Tensor | np.ndarray, axis: int) -> Tensor:
    """Mean correlation between indices of an axis, at the same place on all other axes.

    With axis 1 that is between channels at the same position, with axis 2 between rows in the same channel
    and column. Each feature is centred and scaled by itself, so that a difference of mean between channels or
    positions does not pass for correlation. Features that never vary are left out.

    Args:
        features: float (B, C, *positions), samples on axis 0.
        axis: 1 for channels, 2 for rows, ...

    Returns:
        float64 (n, n) in -1..1 for an axis of length n; 0 where no feature varies.

    Raises:
        ValueError: If features are not finite floats, or the axis is out of range.
    """
    features = check_features(features)
    places = features.movedim(check_axis(axis, features.dim()), 1)[..., None].flatten(2)  # (B, n, places)
    products = pairs = torch.zeros(places.shape[1], places.shape[1], dtype=torch.float64, device=features.device)
    for part in places.split(FEATURES_AT_ONCE, dim=2):
        scaled, varying = _standardize(part)
        products = products + torch.einsum("bip,bjp->ij", scaled, scaled) / len(scaled)
        pairs = pairs + varying.double() @ varying.double().T
    return products / pairs.clamp(min=1)


def feature_dependence(
    features: Tensor | np.ndarray,
    *,
    encode: Callable[[Tensor], Tensor] = quantile_codes,
    max_channels: int = 16,
    max_positions: int = 16,
    seed: int = 0,
) -> FeatureDependence:
    """Dependence within and across channels and positions (the cross-correlation analysis of the abstract).

    Features that never vary are left out; a mean over no pairs at all is NaN.

    Args:
        features: float (B, C, *positions), B >= 20 independent samples.
        encode: Quantizes the chosen features, float (B, F) -> integers (B, F), each column by itself.
        max_channels: How many channels to choose at random.
        max_positions: At how many positions, chosen at random, to take each of them.
        seed: Of the choice.

    Raises:
        ValueError: If features are not finite floats, too few, never vary, or have a single channel or position, or
            fewer than two of either are to be chosen.

    Warns:
        UserWarning: If samples are few for the number of codes, with what independent features would show of so many.
    """
    features = check_features(features)
    check_choice(max_channels=max_channels, max_positions=max_positions)
    flat = features.reshape(*features.shape[:2], -1)  # (B, C, P)
    _, channels, positions = flat.shape
    if channels < 2 or positions < 2:
        raise ValueError(f"features must have channels and positions to compare; got shape {tuple(features.shape)}")
    generator = torch.Generator().manual_seed(seed)
    channel = torch.randperm(channels, generator=generator, device="cpu")[:max_channels]
    position = torch.randperm(positions, generator=generator, device="cpu")[:max_positions]
    columns = flat[:, channel][:, :, position].flatten(1)
    varying = varying_features(columns).cpu()
    pairs = MeasuredPairs(columns[:, varying], encode)
    _warn_if_undersampled(pairs, seed)
    same_channel = _same(channel.repeat_interleave(len(position))[varying])
    same_position = _same(position.repeat(len(channel))[varying])
    return FeatureDependence(
        within_channel=pairs.mean(same_channel & ~same_position),
        within_position=pairs.mean(same_position & ~same_channel),
        across_both=pairs.mean(~same_channel & ~same_position),
    )


class MeasuredPairs:
    """Dependence of all pairs of features, to be averaged over any choice of pairs.

    Args:
        columns: float (B, F), one feature per column.
        encode: Quantizes them, float (B, F) -> integers (B, F).

    Raises:
        ValueError: If encode does not return codes of that kind.
    """

    def __init__(self, columns: Tensor, encode: Callable[[Tensor], Tensor]):
        codes = as_integer_tensor(encode(columns))
        if codes.shape != columns.shape or int(codes.min()) < 0:
            raise ValueError(
                f"encode must return codes of at least 0, of shape {tuple(columns.shape)}; "
                f"got shape {tuple(codes.shape)} and codes from {int(codes.min())}"
            )
        self.codes = codes
        self.num_samples = len(codes)
        self.num_codes = int(codes.max()) + 1
        self.information_nats = _mutual_information_nats(codes, self.num_codes)
        """float64 (1 + NUM_GROUPS, F, F): of all samples, then of all but each group of them."""
        self.squared_correlation = _squared_correlation(columns)  # (F, F)

    @property
    def samples_needed(self) -> int:
        return SAMPLES_PER_CELL * self.num_codes**2

    def mean(self, pairs: Tensor) -> PairDependence:
        """Mean dependence over the pairs that are true in a bool (F, F)."""
        return PairDependence(
            float(self.information_nats[0, pairs].mean()), float(self.squared_correlation[pairs].mean())
        )


def _warn_if_undersampled(pairs: MeasuredPairs, seed: int) -> None:
    if pairs.num_samples < pairs.samples_needed:
        generator = torch.Generator().manual_seed(seed)
        keys = torch.rand(pairs.codes.shape, generator=generator, dtype=torch.float32, device="cpu")
        shuffled = pairs.codes.gather(0, keys.argsort(0).to(pairs.codes.device))  # each column by itself
        information = _mutual_information_nats(shuffled, pairs.num_codes)[0]
        independent = float(information[~torch.eye(len(information), dtype=torch.bool)].mean())
        warnings.warn(
            f"feature_dependence has only {pairs.num_samples} samples for {pairs.num_codes} codes per feature, which "
            f"ask for {pairs.samples_needed}: with the samples of each feature shuffled, they show "
            f"{independent:.3g} nats of mutual information; take more samples, or fewer codes",
            UserWarning,
            stacklevel=3,
        )


def check_features(features: Tensor | np.ndarray) -> Tensor:
    """Features as a tensor, refused unless finite floats (B, C, ...) of enough samples."""
    features = as_tensor(features)
    shape = tuple(features.shape)
    if not features.dtype.is_floating_point or features.dim() < 2 or 0 in shape[1:]:
        raise ValueError(f"features must be floats (B, C, ...) and not empty; got {features.dtype} of shape {shape}")
    if len(features) < 2 * NUM_GROUPS:
        raise ValueError(f"features must hold at least {2 * NUM_GROUPS} samples on axis 0; got shape {shape}")
    _check_finite(features)
    return features


def _check_finite(features: Tensor) -> None:
    num_bad = features.numel() - int(features.isfinite().sum())
    if num_bad:
        raise ValueError(
            f"features must be finite; got NaN or infinity in {num_bad} of {features.numel()} entries; "
            "drop those samples"
        )


def check_axis(axis: int, rank: int) -> int:
    """The axis counted from 0, refused unless it exists and is not that of the samples."""
    if not isinstance(axis, int) or not -rank < axis < rank or axis == 0:
        raise ValueError(f"axis must lie in [1, {rank}), axis 0 being the samples; got {axis}")
    return axis % rank


def check_choice(**numbers: int) -> None:
    """Refuse to choose fewer features than make a pair."""
    for name, number in numbers.items():
        if number < 2:
            raise ValueError(f"{name} must be at least 2, to form pairs; got {number}")


def varying_features(columns: Tensor) -> Tensor:
    """Indices of the features of (B, F) that vary over samples, refused unless there is a pair of them."""
    varying = _varies(columns).nonzero().flatten()
    if len(varying) < 2:
        raise ValueError(f"features must hold at least 2 that vary over the samples; got {len(varying)}")
    return varying


def _varies(features: Tensor) -> Tensor:
    """Which features (B, ...) vary over samples: exact, where a standard deviation may be a rounding error."""
    return features.amax(0) > features.amin(0)


def _same(labels: Tensor) -> Tensor:
    return labels[:, None] == labels[None, :]


def _standardize(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, ...) of mean 0 and mean square 1 over samples, 0 where they never vary; and if they do."""
    centred = features.double() - features.double().mean(0)
    scale = centred.square().mean(0).sqrt()
    varying = _varies(features)
    return torch.where(varying, centred / scale, 0.0), varying


def _squared_correlation(columns: Tensor) -> Tensor:
    """Squared correlation of all pairs of columns (B, F), less its mean for independent ones."""
    scaled, _ = _standardize(columns)
    squared = (scaled.T @ scaled / len(columns)).square()
    return 1 - (1 - squared) * (len(columns) - 1) / (len(columns) - 2)


def _mutual_information_nats(codes: Tensor, num_codes: int) -> Tensor:
    """Miller-Madow mutual information of all pairs of columns of codes (B, F): (1 + NUM_GROUPS, F, F)."""
    num_features = codes.shape[1]
    per_group = math.ceil(len(codes) / NUM_GROUPS)
    seen = one_hot(codes, num_codes).float().flatten(1)  # (B, F * K)
    # Groups of equal size up to one; a row of zeros, which counts nothing, makes up for it.
    groups = [pad(group, (0, 0, 0, per_group - len(group))) for group in seen.tensor_split(NUM_GROUPS)]
    seen = torch.stack(groups)
    entropy = entropy_nats(_leave_one_out(seen.sum(1)).unflatten(1, (-1, num_codes)), "miller_madow")
    rows = max(1, TABLE_CELLS_AT_ONCE // (num_features * num_codes**2))
    joint_entropy = []
    for block in seen.split(rows * num_codes, dim=2):
        tables = _leave_one_out(block.mT @ seen)  # (1 + groups, rows * K, F * K)
        tables = tables.unflatten(2, (-1, num_codes)).unflatten(1, (-1, num_codes)).transpose(2, 3)
        joint_entropy.append(entropy_nats(tables.flatten(3), "miller_madow"))  # (1 + groups, rows, F)
    return entropy[:, :, None] + entropy[:, None, :] - torch.cat(joint_entropy, dim=1)


def _leave_one_out(counts: Tensor) -> Tensor:
    """Counts per group (G, ...) -> those of all groups, then of all but each: (1 + G, ...)."""
    counts = counts.int()
    total = counts.sum(0, keepdim=True, dtype=counts.dtype)
    return torch.cat([total, total - counts])
