"""Joint entropy of all codebooks, and total correlation: what their entropies count more than once."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from depthq.analysis.counting import MOST_CELLS_OF_A_LEVEL, CodeArray, Codebook, CodeCounts, as_integer_tensor
from depthq.analysis.entropy import SAMPLES_PER_CODE, EntropyEstimator, check_estimator, entropy_nats
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


def joint_entropy_nats(
    codes: CodeCounts | Codes | CodeArray, estimator: EntropyEstimator = "plugin", *, level: int | None = None
) -> float:
    """Entropy of all M codes of a position together.

    From N samples the plug-in estimate cannot exceed log N, far below the truth once M log K does.

    Args:
        codes: `CodeCounts`, from their table of all codebooks of a level; or the codes themselves, whose distinct rows
            are counted, however many there could be: `Codes`, or any integer dtype, (N, M) or (B, M, *positions).
        estimator: "plugin" or "miller_madow".
        level: Which to take of several levels.

    Raises:
        ValueError: If codes are empty, not integers or negative, there are several levels and none is chosen, counts
            have no table of this level, as its combinations are more than 2^22 or the table was left out, or the
            estimator is unknown.

    Warns:
        UserWarning: If there are too few samples per distinct row, with the bias to expect and the corrected
            figure.
    """
    joint, _ = _joint_and_single_counts(codes, level)
    if _is_undersampled(joint, estimator):
        bias = (int((joint > 0).sum()) - 1) / (2 * int(joint.sum()))
        warnings.warn(
            f"joint_entropy_nats {_too_few(joint)}: plug-in entropy is too low by at least about "
            f"(rows - 1) / (2 N) = {bias:.3g} nats; it is {float(entropy_nats(joint, 'miller_madow')):.4g} nats after "
            "Miller-Madow correction; use joint_entropy_bounds",
            UserWarning,
            stacklevel=2,
        )
    return float(entropy_nats(joint, estimator))


def total_correlation_nats(
    codes: CodeCounts | Codes | CodeArray, estimator: EntropyEstimator = "plugin", *, level: int | None = None
) -> float:
    """sum_m H_m - H: 0 for independent codes, and above what pairs show where dependence is of higher order.

    Arguments and errors are those of `joint_entropy_nats`.

    Warns:
        UserWarning: If there are too few samples per distinct row: it is too high, by about as much as the joint
            entropy is too low. With the corrected figure.
    """
    joint, singles = _joint_and_single_counts(codes, level)
    if _is_undersampled(joint, estimator):
        warnings.warn(
            f"total_correlation_nats {_too_few(joint)}: plug-in total correlation, "
            f"{_total_correlation_nats(joint, singles, 'plugin'):.4g} nats, is too high unless codes determine each "
            f"other; it is {_total_correlation_nats(joint, singles, 'miller_madow'):.4g} nats after Miller-Madow "
            "correction, which from so few may still be too high; use joint_entropy_bounds",
            UserWarning,
            stacklevel=2,
        )
    return _total_correlation_nats(joint, singles, estimator)


def _total_correlation_nats(joint: Tensor, singles: list[Tensor], estimator: EntropyEstimator) -> float:
    return float(sum(entropy_nats(single, estimator) for single in singles) - entropy_nats(joint, estimator))


def _is_undersampled(joint: Tensor, estimator: str) -> bool:
    check_estimator(estimator, SAMPLES_PER_CODE)
    return int(joint.sum()) < SAMPLES_PER_CODE[estimator] * int((joint > 0).sum())


def _too_few(joint: Tensor) -> str:
    return f"has only {int(joint.sum())} samples for {int((joint > 0).sum())} distinct rows"


def _joint_and_single_counts(codes: CodeCounts | Codes | CodeArray, level: int | None) -> tuple[Tensor, list[Tensor]]:
    """How often each combination of the codes of a level occurs, one row, and how often each code of each codebook."""
    if not isinstance(codes, CodeCounts):
        columns = _columns(codes, level)
        return _distinct_rows(columns)[1], [column.unique(return_counts=True)[1] for column in columns]
    level = _one_level(level, len(codes.codebook_sizes))
    joint, sizes = codes.joint_of_level(level), codes.codebook_sizes[level]
    if joint is None:
        raise ValueError(
            f"codes must be of a level whose table of all codebooks fits into {MOST_CELLS_OF_A_LEVEL:,} cells and into "
            f"limit_bytes; got counts of sizes {sizes}; pass the codes themselves, or use joint_entropy_bounds"
        )
    return joint.flatten(), list(codes.marginal(level))


def _one_level(level: int | None, num_levels: int) -> int:
    if level is None and num_levels == 1:
        return 0
    if level is None or not 0 <= level < num_levels:
        raise ValueError(
            f"level must say which of {num_levels} levels to take, from 0; got {level}; for all levels at once use "
            "joint_entropy_bounds"
        )
    return level


def _columns(codes: Codes | CodeArray, level: int | None) -> Tensor:
    """Codes of one level as one row of samples per codebook, int64 (M, N)."""
    levels = codes.levels if isinstance(codes, Codes) else (codes,)
    columns = as_integer_tensor(levels[_one_level(level, len(levels))]).movedim(1, 0).flatten(1)
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
