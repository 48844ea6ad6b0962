"""Joint entropy of all codebooks, and total correlation: what their entropies count more than once."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from depthq.analysis.counting import CodeArray, Codebook, as_integer_tensor
from depthq.analysis.entropy import SAMPLES_PER_CODE, EntropyEstimator, entropy_nats
from depthq.analysis.mutual_information import MutualInformation
from depthq.codes import Codes
from depthq.units import nats_to_bits


@dataclass(frozen=True)
class JointEntropyBounds:
    """Between what the joint entropy H of all codebooks must lie, from pairs alone.

        max_m H_m <= max_ab H_ab <= H <= sum_m H_m - (mutual information along the best tree) <= sum_m H_m

    Total correlation is sum_m H_m - H, so each bound on one is a bound on the other. On plug-in figures of
    one sample the bounds hold exactly, where all levels have the same positions or each finer grid is a whole
    multiple of the coarser; on other grids and on corrected figures nearly.
    """

    sum_entropy_nats: float
    """sum_m H_m: what the codes would cost if they were independent."""
    lower_nats: float
    upper_nats: float
    tree: tuple[tuple[Codebook, Codebook], ...]
    """The tree of pairs with the most mutual information in all (Chow and Liu, 1968)."""

    @property
    def lower_bits(self) -> float:
        return nats_to_bits(self.lower_nats)

    @property
    def upper_bits(self) -> float:
        return nats_to_bits(self.upper_nats)

    @property
    def total_correlation_lower_nats(self) -> float:
        """Mutual information along the tree: the codes are at least this redundant."""
        return self.sum_entropy_nats - self.upper_nats

    @property
    def total_correlation_upper_nats(self) -> float:
        return self.sum_entropy_nats - self.lower_nats


def joint_entropy_bounds(information: MutualInformation) -> JointEntropyBounds:
    """Bounds on the joint entropy of all codebooks of a mutual information matrix."""
    entropy, matrix = information.entropy_nats, information.matrix_nats
    pair_entropy = entropy[:, None] + entropy[None, :] - matrix  # its diagonal is H_m itself
    edges = _maximum_spanning_tree(matrix)
    sum_entropy = float(entropy.sum())
    return JointEntropyBounds(
        sum_entropy_nats=sum_entropy,
        lower_nats=float(pair_entropy.max()),
        upper_nats=sum_entropy - sum(float(matrix[a, b]) for a, b in edges),
        tree=tuple((information.codebooks[a], information.codebooks[b]) for a, b in edges),
    )


def joint_entropy_nats(codes: Codes | CodeArray, estimator: EntropyEstimator = "plugin") -> float:
    """Entropy of all M codes of a position together, by counting distinct rows of the whole sample.

    From N samples the plug-in estimate cannot exceed log N, far below the truth once M log K does.

    Args:
        codes: `Codes` of one level, or any integer dtype, (N, M) or (B, M, *positions), at least 0.
        estimator: "plugin" or "miller_madow".

    Raises:
        ValueError: If codes are empty, not integers, negative or of several levels, or the estimator is unknown.

    Warns:
        UserWarning: If there are too few samples per distinct row, with the bias to expect and the corrected
        figure.
    """
    _, counts = _distinct_rows(_columns(codes))
    samples, used = int(counts.sum()), len(counts)
    if samples < SAMPLES_PER_CODE.get(estimator, 0) * used:
        warnings.warn(
            f"joint_entropy_nats has only {samples} samples for {used} distinct rows: plug-in entropy is "
            f"too low by at least about (rows - 1) / (2 N) = {(used - 1) / (2 * samples):.3g} nats; it is "
            f"{float(entropy_nats(counts, 'miller_madow')):.4g} nats after Miller-Madow correction; use "
            "joint_entropy_bounds",
            UserWarning,
            stacklevel=2,
        )
    return float(entropy_nats(counts, estimator))


def total_correlation_nats(codes: Codes | CodeArray, estimator: EntropyEstimator = "plugin") -> float:
    """sum_m H_m - H: 0 for independent codes, and above what pairs show where dependence is of higher order.

    Arguments and warnings are those of `joint_entropy_nats`. From few samples it is too high, by as much as the
    joint entropy is too low.
    """
    joint = joint_entropy_nats(codes, estimator)
    columns = _columns(codes)
    return sum(float(entropy_nats(column.unique(return_counts=True)[1], estimator)) for column in columns) - joint


def _columns(codes: Codes | CodeArray) -> Tensor:
    """Codes as one row of samples per codebook, int64 (M, N)."""
    if isinstance(codes, Codes):
        if len(codes.levels) != 1:
            raise ValueError(
                f"codes must be of one level; got {len(codes.levels)} levels; pass one of codes.levels, or use "
                "joint_entropy_bounds, which spans levels"
            )
        codes = codes.levels[0]
    columns = as_integer_tensor(codes).movedim(1, 0).flatten(1)
    if columns.amin() < 0:
        raise ValueError(f"codes must be at least 0; got {int(columns.amin())}; leave masked positions out")
    return columns


def _distinct_rows(columns: Tensor) -> tuple[Tensor, Tensor]:
    """A number per distinct row of codes (N,), and how often each occurs."""
    rank = torch.zeros_like(columns[0])
    counts = torch.tensor([len(rank)])
    for column in columns:
        # Ranks are below N after each step, so that the product with K does not overflow whatever M is.
        _, rank, counts = (rank * (column.max() + 1) + column).unique(return_inverse=True, return_counts=True)
    return rank, counts


def _maximum_spanning_tree(weights: Tensor) -> list[tuple[int, int]]:
    """Prim's algorithm on a full graph: edges (in the tree already, new)."""
    inside, outside, edges = [0], set(range(1, len(weights))), []
    while outside:
        edge = max(((a, b) for a in inside for b in outside), key=lambda edge: float(weights[edge]))
        edges.append(edge)
        inside.append(edge[1])
        outside.remove(edge[1])
    return edges
