"""A quantizer as density estimator of features that were never quantized (Sec. 5.1, Table 2).

Maps (B, C, H, W) are cut into vectors of D = ceil(C / M) dimensions, one per (channel segment, row, column). What is
compared is only which of them share a codebook: those of one channel segment (DQ_C), or those of one row (DQ_S).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from statistics import fmean, stdev
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from depthq.analysis import entropy_nats
from depthq.analysis.entropy import SAMPLES_PER_CODE
from depthq.codes import CodebookUsage, count_codes
from depthq.progress import progress
from depthq.quantizers import DepthwiseQuantizer

Axis = Literal["channel", "row"]
_MAPS_AT_ONCE = 32


@dataclass(frozen=True)
class DensityMetrics:
    """How well one trained quantizer describes one set of maps."""

    mse: float
    """L_DQ: squared error per value, averaged over all B * C * H * W values (never over the zero padding)."""
    mse_standardized: float
    """The same for features of mean 0 and variance 1: mse / variance of all training values. 1 is no better than
    their mean."""
    entropy_nats: float
    """Plug-in entropy of one code, averaged over codebooks, 0..log K."""
    entropy_miller_madow_nats: float
    """The same, corrected for the number of vectors."""
    usage: float
    """Share of the K codes that occur, averaged over codebooks, 0..1."""


@dataclass(frozen=True)
class Spread:
    """A metric over several seeds."""

    mean: float
    deviation: float | None
    """Standard deviation over seeds (n - 1 in the denominator); None for a single one."""


@dataclass(frozen=True)
class DensitySummary:
    """`DensityMetrics` over several seeds."""

    mse: Spread
    mse_standardized: Spread
    entropy_nats: Spread
    entropy_miller_madow_nats: Spread
    usage: Spread


@dataclass(frozen=True)
class Density:
    """One row of Table 2: a decomposition and a codebook size, trained once per seed."""

    axis: Axis
    num_codebooks: int
    codebook_size: int
    codebook_dim: int
    seeds: int
    held_out: DensitySummary
    """On features that the quantizers were not trained on."""
    training: DensitySummary
    """On those that they were; an error well below the held-out one says that codes remember single vectors."""
    warnings: tuple[str, ...]
    """Which entropies rest on too few vectors, with the bias to expect."""


def decompose(maps: Tensor, num_codebooks: int, axis: Axis) -> Tensor:
    """Cut maps into vectors, in the layout in which a depthwise quantizer gives codebook i to group i.

    Args:
        maps: float (B, C, H, W).
        num_codebooks: M. Channels are padded with zeros to M segments of D = ceil(C / M) (512 -> 7 x 74 in Sec. 5.1).
        axis: "channel" groups vectors by channel segment (DQ_C), "row" by row (DQ_S), of which there must be M.

    Returns:
        (B, M * D, *positions), where positions are (row, column) for "channel" and (segment, column) for "row".
    """
    width = codebook_dim(maps.shape[1], num_codebooks)
    padded = pad(maps, (0, 0, 0, 0, 0, num_codebooks * width - maps.shape[1]))
    segments = padded.unflatten(1, (num_codebooks, width))  # (B, segment, D, row, column)
    groups = segments if axis == "channel" else segments.transpose(1, 3)
    return groups.flatten(1, 2)


def codebook_dim(channels: int, num_codebooks: int) -> int:
    """D, the width of each of M segments of the padded channels."""
    return -(-channels // num_codebooks)


def check_maps(train: np.ndarray, held_out: np.ndarray, axis: Axis, num_codebooks: int) -> None:
    """Raise ValueError unless features are float maps of the same kind that M codebooks fit; values are not read."""
    if axis not in get_args(Axis):
        raise ValueError(f"axis must be one of {', '.join(get_args(Axis))}; got {axis!r}")
    _check_floats("training features", train)
    _check_floats("held-out features", held_out)
    if train.shape[1:] != held_out.shape[1:]:
        raise ValueError(
            f"held-out features must have the training features' C, H and W; got {held_out.shape} and {train.shape}"
        )
    _, channels, rows, _ = train.shape
    if num_codebooks < 1 or (num_codebooks - 1) * codebook_dim(channels, num_codebooks) >= channels:
        raise ValueError(
            f"num_codebooks must cut the channels into segments none of which is padding alone; "
            f"got {num_codebooks} for {channels} channels; choose another"
        )
    if axis == "row" and num_codebooks != rows:
        raise ValueError(
            f'num_codebooks must be the number of rows where axis is "row"; got {num_codebooks} for {rows} rows; '
            f"pass {rows}, or decompose by channel alone"
        )


def _check_floats(name: str, maps: np.ndarray) -> None:
    if not isinstance(maps, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array; got {type(maps).__name__}; of a tensor, pass .numpy()")
    if maps.ndim != 4 or 0 in maps.shape or not np.issubdtype(maps.dtype, np.floating):
        raise ValueError(
            f"{name} must be floats (B, C, H, W), none of them empty; "
            f"got {maps.dtype} of shape {maps.shape}; reshape or convert them"
        )


def feature_moments(features: np.ndarray, name: str = "features") -> tuple[float, float]:
    """Mean and variance of all values together.

    Raises:
        ValueError: If a value is NaN or infinite, or all are the same.
    """
    origin = float(features.flat[0])  # sums about a value of the right size: equal values give exactly 0
    total, total_square = 0.0, 0.0
    for part in _parts(features, f"reading {name}"):
        with np.errstate(over="ignore"):
            bad = part.size - int(np.isfinite(part.astype(np.float32)).sum())
        if bad:
            raise ValueError(
                f"{name} must be finite; got NaN or infinity in {bad} of {part.size} values read together as float32; "
                "drop those maps, or look at the layer that they come from"
            )
        centred = part.astype(np.float64) - origin
        total, total_square = total + centred.sum(), total_square + np.square(centred).sum()
    mean = total / features.size
    variance = total_square / features.size - mean**2
    if not variance > 0:
        raise ValueError(f"{name} must vary; got {origin:g} everywhere; choose another layer")
    return float(mean + origin), float(variance)


def estimate_density(
    train: np.ndarray,
    held_out: np.ndarray,
    *,
    axis: Axis,
    codebook_size: int,
    num_codebooks: int = 7,
    steps: int = 200,
    batch_size: int = 32,
    seeds: int = 10,
    device: str = "cpu",
    variance: float | None = None,
) -> Density:
    """Train one quantizer per seed on some features and measure it on them and on others (Sec. 5.1).

    The seed decides the order of the maps, and with it the initial codes, which are spread over the first batch. See
    `DepthwiseQuantizer.fit` for how codebooks learn.

    Args:
        train: float (B, C, H, W), such as `open_features` gives.
        held_out: float (B', C, H, W).
        axis: "channel" (DQ_C) or "row" (DQ_S).
        codebook_size: K.
        num_codebooks: M, at most C; for "row" equal to H.
        steps: Batches that each quantizer is trained on.
        batch_size: Maps per batch.
        seeds: Quantizers to train, with seeds 0, 1, ...
        device: Where to compute.
        variance: Of all training values, where `feature_moments` has read and checked both sets of maps already; by
            default they are read here, as a whole.

    Raises:
        ValueError: If features are not finite float maps of equal shape that M fits, the axis is unknown, or a number
            is below 1.
    """
    _check_counts(steps=steps, batch_size=batch_size, seeds=seeds)
    check_maps(train, held_out, axis, num_codebooks)
    if variance is None:
        _, variance = feature_moments(train, "training features")
        feature_moments(held_out, "held-out features")
    dim = codebook_dim(train.shape[1], num_codebooks)
    held_out_metrics, training_metrics = [], []
    for seed in range(seeds):
        quantizer = DepthwiseQuantizer(num_codebooks * dim, num_codebooks, codebook_size).to(device)
        _train(quantizer, train, axis, steps, batch_size, seed, device)
        held_out_metrics.append(_measure(quantizer, held_out, axis, variance, device))
        training_metrics.append(_measure(quantizer, train, axis, variance, device))
    on_held_out, on_train = _summarize(held_out_metrics), _summarize(training_metrics)
    doubts = (
        *_doubts(f"held-out features, by {axis},", held_out, codebook_size, on_held_out),
        *_doubts(f"training features, by {axis},", train, codebook_size, on_train),
    )
    return Density(axis, num_codebooks, codebook_size, dim, seeds, on_held_out, on_train, doubts)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")


def _train(
    quantizer: DepthwiseQuantizer,
    features: np.ndarray,
    axis: Axis,
    steps: int,
    batch_size: int,
    seed: int,
    device: str,
) -> None:
    task = f"{axis}, K = {quantizer.codebook_sizes[0]}, seed {seed}"
    batches = _training_batches(features, steps, batch_size, seed)
    vectors = (
        decompose(_as_tensor(maps, device), quantizer.num_codebooks, axis)
        for maps in progress(batches, total=steps, what=task, unit="step")
    )
    quantizer.fit(vectors, steps=steps, seed=seed, progress=False)


def _doubts(name: str, features: np.ndarray, codebook_size: int, summary: DensitySummary) -> Iterator[str]:
    vectors = len(features) * math.prod(features.shape[2:])  # per codebook, the same for both decompositions
    codes_in_use = summary.usage.mean * codebook_size
    if vectors < SAMPLES_PER_CODE["plugin"] * codes_in_use:
        plugin, corrected = summary.entropy_nats.mean, summary.entropy_miller_madow_nats.mean
        yield (
            f"{name} give each codebook only {vectors} vectors for {codes_in_use:.0f} codes in use of {codebook_size}: "
            f"plug-in entropy is too low by at least about {corrected - plugin:.3g} nats; it is {corrected:.4g} nats "
            "after Miller-Madow correction; take more maps"
        )


def _training_batches(features: np.ndarray, steps: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of maps: one random permutation of them after another, without a pause in between."""
    generator = np.random.default_rng(seed)
    epochs = math.ceil(steps * batch_size / len(features))
    order = np.concatenate([generator.permutation(len(features)) for _ in range(epochs)])
    for chosen in order[: steps * batch_size].reshape(steps, batch_size):
        # Ascending, so that a memory-mapped file is read in one direction; but all of few maps as they were drawn, for
        # else a seed would decide on nothing.
        yield features[np.sort(chosen) if batch_size < len(features) else chosen]


def _parts(features: np.ndarray, task: str) -> Iterator[np.ndarray]:
    """All maps, some at a time."""
    for start in progress(range(0, len(features), _MAPS_AT_ONCE), what=task, unit="batch"):
        yield features[start : start + _MAPS_AT_ONCE]


def _as_tensor(maps: np.ndarray, device: str) -> Tensor:
    return torch.from_numpy(maps.astype(np.float32)).to(device)


@torch.no_grad()
def _measure(
    quantizer: DepthwiseQuantizer, features: np.ndarray, axis: Axis, variance: float, device: str
) -> DensityMetrics:
    """Figures of a trained quantizer; `variance` is that of the training features."""
    quantizer.eval()
    is_value = decompose(torch.ones(1, *features.shape[1:], device=device), quantizer.num_codebooks, axis)
    squared_error, counts = 0.0, torch.zeros((), dtype=torch.int64, device=device)
    for part in _parts(features, "measuring"):
        vectors = decompose(_as_tensor(part, device), quantizer.num_codebooks, axis)
        out = quantizer(vectors)
        errors = (out.quantized - vectors) * is_value  # a codebook of all segments may answer padding with values
        squared_error += errors.square().sum(dtype=torch.float64).item()
        counts = counts + count_codes(out.codes, out.codebook_sizes)
    usage = CodebookUsage.from_counts(counts, quantizer.codebook_sizes)
    mse = squared_error / features.size
    return DensityMetrics(
        mse=mse,
        mse_standardized=mse / variance,
        entropy_nats=usage.entropy_nats.mean().item(),
        entropy_miller_madow_nats=entropy_nats(counts, "miller_madow").mean().item(),
        usage=usage.usage.mean().item(),
    )


def _summarize(runs: Sequence[DensityMetrics]) -> DensitySummary:
    return DensitySummary(
        **{field.name: _spread([getattr(run, field.name) for run in runs]) for field in fields(DensityMetrics)}
    )


def _spread(values: list[float]) -> Spread:
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)
