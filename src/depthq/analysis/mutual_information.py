"""Mutual information between codebooks, from joint counts (Eq. 7)."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from depthq.analysis.counting import CodeArray, Codebook, CodeCounts, as_counts
from depthq.analysis.entropy import check_estimator, entropy_nats
from depthq.units import nats_to_bits

Estimator = Literal["plugin", "miller_madow", "shuffle"]
Normalizer = Literal["min", "geometric", "arithmetic", "max", "joint"]

# Samples per cell of the joint table below which an estimate is about 0.1 nats or more from the truth.
SAMPLES_PER_CELL = {"plugin": 5, "miller_madow": 2, "shuffle": 0}
# Shuffling is in doubt where both what it takes away and what it leaves are at least this much.
NOTICEABLE_NATS = 0.1
FEWEST_OF_ONE_CODE = 5  # positions; from fewer, a codebook that shows one code need not be constant
MOST_CELLS_DRAWN = 2**22  # of a table, that cost more than to permute fewer codes than these
MOST_COUNTS_SHUFFLED = 10**9  # NumPy draws from no larger sample


@dataclass(frozen=True)
class MutualInformation:
    """Mutual information between each pair of codebooks; the diagonal is their entropy (Fig. 3, right)."""

    codebooks: tuple[Codebook, ...]
    """(level, index) of each row and column."""
    estimator: Estimator
    matrix_nats: Tensor
    """float64 (V, V), symmetric. Corrected estimates scatter around the truth: some may be below 0."""

    @property
    def matrix_bits(self) -> Tensor:
        return nats_to_bits(self.matrix_nats)

    @property
    def entropy_nats(self) -> Tensor:
        """Entropy of each codebook, (V,)."""
        return self.matrix_nats.diagonal()

    @property
    def mean_pairwise_nats(self) -> float:
        """Mean over pairs of different codebooks, the "mean MI" of Sec. 5.2.

        Raises:
            ValueError: If there is only one codebook.
        """
        size = len(self.codebooks)
        if size < 2:
            raise ValueError(f"codebooks must be at least two to form a pair; got {size}")
        return float((self.matrix_nats.sum() - self.entropy_nats.sum()) / (size * (size - 1)))

    @property
    def mean_pairwise_bits(self) -> float:
        return nats_to_bits(self.mean_pairwise_nats)

    def normalized(self, by: Normalizer = "geometric") -> Tensor:
        """Mutual information as a share of what two codebooks could share: 0 independent, 1 redundant.

        Args:
            by: What stands for 1: the "min", "max", "geometric" or "arithmetic" mean of the two entropies, or
                their "joint" entropy. A pair with a constant codebook has 0.

        Returns:
            float64 (V, V), diagonal 1 (0 for a constant codebook).
        """
        row, column = self.entropy_nats[:, None], self.entropy_nats[None, :]
        scales = {
            "min": torch.minimum(row, column),
            "geometric": (row * column).sqrt(),
            "arithmetic": (row + column) / 2,
            "max": torch.maximum(row, column),
            "joint": row + column - self.matrix_nats,
        }
        if by not in scales:
            raise ValueError(f"by must be one of {', '.join(scales)}; got {by!r}")
        return torch.where(scales[by] > 0, self.matrix_nats / scales[by], 0.0)


def mutual_information_nats(joint: CodeArray, estimator: Estimator = "plugin", *, seed: int = 0) -> float:
    """Mutual information of two variables, I = H(a) + H(b) - H(a, b); relabelling codes does not change it.

    The plug-in estimate from a finite sample is too high for independent variables, by (K_a - 1)(K_b - 1) / (2 N),
    and too low for variables that determine each other, by (K - 1) / (2 N). "miller_madow" corrects the three
    entropies, and holds from about two samples per cell of the table in use. "shuffle" subtracts what the same
    marginals give when they are paired at random: it is right for independent variables at any sample size, and
    from few samples takes most of the truth away from strongly dependent ones.

    Args:
        joint: integers (K_a, K_b), at least one count.
        estimator: "plugin", "miller_madow" or "shuffle".
        seed: Of the random pairing.

    Returns:
        Nats; corrected estimates may be negative.

    Raises:
        ValueError: If the table is not 2-D, of integers of at least 0 and with counts, or the estimator is unknown.
    """
    check_estimator(estimator, SAMPLES_PER_CELL)
    joint = _as_joint(joint)
    if estimator == "shuffle":
        return mutual_information_nats(joint) - shuffled_mutual_information_nats(joint, seed=seed)
    parts = [entropy_nats(part, estimator) for part in (joint.sum(1), joint.sum(0), joint.flatten())]
    information = float(parts[0] + parts[1] - parts[2])
    return max(information, 0.0) if estimator == "plugin" else information


def shuffled_mutual_information_nats(joint: CodeArray, *, num_shuffles: int = 4, seed: int = 0) -> float:
    """Plug-in mutual information left when one variable's codes are permuted at random: its bias if independent.

    The permuted sample's table is drawn straight from the marginals, row by row without replacement, which
    has the same distribution as permuting the codes and does not need them. Of a table with more than 2^22 cells, and
    more cells than counts, codes are permuted instead, which is faster there. From 10^9 counts, of which NumPy does
    not draw, it is the limit for large samples, (K_a - 1)(K_b - 1) / (2 N) over the codes in use.
    """
    joint = _as_joint(joint)
    rows, columns = joint.sum(1).cpu().numpy(), joint.sum(0).cpu().numpy()
    rows, columns = rows[rows > 0], columns[columns > 0]
    if rows.sum() >= MOST_COUNTS_SHUFFLED:
        return _large_sample_bias_nats(joint)
    rng = np.random.default_rng(seed)
    if len(rows) * len(columns) > max(MOST_CELLS_DRAWN, rows.sum()):
        return sum(_permuted_information_nats(rows, columns, rng) for _ in range(num_shuffles)) / num_shuffles
    tables = (torch.from_numpy(_draw_independent_table(rows, columns, rng)) for _ in range(num_shuffles))
    return sum(mutual_information_nats(table) for table in tables) / num_shuffles


def pairwise_mutual_information(
    counts: CodeCounts,
    levels: Sequence[int] | None = None,
    estimator: Estimator = "plugin",
    *,
    seed: int = 0,
) -> MutualInformation:
    """Mutual information between all pairs of codebooks (Eq. 7), within a level and across levels.

    Corrections and warnings take positions for independent samples. Those of one image are not, and across levels a
    coarse code counts once for each fine position it covers: the bias that is left is larger than they say.

    Args:
        counts: Of the sample.
        levels: The levels whose codebooks to take, all by default.
        estimator: Of the pairs; the entropies on the diagonal are Miller-Madow for the corrected ones, else
            plug-in.
        seed: Of the random pairing of "shuffle".

    Raises:
        ValueError: If a level does not exist, there is none, nothing has been counted, or the estimator is unknown.

    Warns:
        UserWarning: If there are too few samples per pair of codes; for "shuffle", if it takes much away from a
            pair and leaves much. It tells all three estimates of the pair most in doubt.
    """
    check_estimator(estimator, SAMPLES_PER_CELL)
    chosen = range(len(counts.codebook_sizes)) if levels is None else levels
    if isinstance(chosen, int):
        raise ValueError(f"levels must be a list of levels; got {chosen}; pass [{chosen}]")
    if not chosen:
        raise ValueError("levels must hold at least one level; got none; leave it out for all")
    codebooks = tuple(codebook for codebook in counts.codebooks if codebook[0] in chosen)
    diagonal = [
        entropy_nats(counts.marginal(level), "plugin" if estimator == "plugin" else "miller_madow")
        for level in sorted(set(chosen))
    ]
    matrix = torch.diag(torch.cat(diagonal).cpu())
    pairs = [(i, j) for j in range(len(codebooks)) for i in range(j)]
    for i, j in pairs:
        joint = counts.joint(codebooks[i], codebooks[j])
        matrix[i, j] = matrix[j, i] = mutual_information_nats(joint, estimator, seed=seed)
    information = MutualInformation(codebooks, estimator, matrix)
    _warn_if_undersampled(counts, information)
    return information


def _as_joint(joint: CodeArray) -> Tensor:
    joint = as_counts(joint, "joint")
    if joint.dim() != 2:
        raise ValueError(f"joint must be (K_a, K_b); got shape {tuple(joint.shape)}")
    if not joint.any():
        raise ValueError("joint must hold at least one count; got none")
    return joint


def _draw_independent_table(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A table with these marginals, all pairings of the sample being equally likely."""
    left, table = columns.copy(), np.empty((len(rows), len(columns)), dtype=np.int64)
    for row, count in enumerate(rows):
        table[row] = rng.multivariate_hypergeometric(left, count, method="marginals")
        left -= table[row]
    return table


def _permuted_information_nats(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> float:
    """Plug-in mutual information of codes with these counts, paired at random, without their table."""
    a, b = (np.repeat(np.arange(len(counts)), counts) for counts in (rows, columns))
    _, joint = np.unique(a * len(columns) + rng.permutation(b), return_counts=True)
    entropies = [float(entropy_nats(counts)) for counts in (rows, columns, joint)]
    return entropies[0] + entropies[1] - entropies[2]


def _large_sample_bias_nats(joint: Tensor) -> float:
    """What independent variables show, to first order; far too much where samples are fewer than cells."""
    rows, columns = _codes_in_use(joint)
    return (rows - 1) * (columns - 1) / (2 * int(joint.sum()))


def _codes_in_use(joint: Tensor) -> tuple[int, int]:
    return int((joint.sum(1) > 0).sum()), int((joint.sum(0) > 0).sum())


def _doubt(joint: Tensor, estimator: Estimator, estimate_nats: float) -> float:
    """How much an estimate is in doubt, to rank pairs by; 0 where the sample suffices."""
    samples, codes = int(joint.sum()), _codes_in_use(joint)
    if min(codes) == 1:  # shares 0 by any estimate, which is no news of a codebook that was hardly looked at
        return math.inf if samples < FEWEST_OF_ONE_CODE else 0.0
    if estimator == "shuffle":
        baseline = mutual_information_nats(joint) - estimate_nats
        return baseline if min(baseline, estimate_nats) > NOTICEABLE_NATS else 0.0
    return 0.0 if samples >= SAMPLES_PER_CELL[estimator] * math.prod(codes) else _large_sample_bias_nats(joint)


def _warn_if_undersampled(counts: CodeCounts, information: MutualInformation) -> None:
    doubt, worst = 0.0, None
    for (i, a), (j, b) in combinations(enumerate(information.codebooks), 2):
        joint = counts.joint(a, b)
        of_this_pair = _doubt(joint, information.estimator, float(information.matrix_nats[i, j]))
        if of_this_pair > doubt:
            doubt, worst = of_this_pair, joint
    if doubt == math.inf and worst is not None:
        warnings.warn(
            f"pairwise_mutual_information has only {int(worst.sum())} positions, all with one code of a codebook: they "
            "cannot show any mutual information; count more images",
            UserWarning,
            stacklevel=3,
        )
    elif worst is not None:
        rows, columns = _codes_in_use(worst)
        plugin, baseline = mutual_information_nats(worst), shuffled_mutual_information_nats(worst)
        warnings.warn(
            f"pairwise_mutual_information has only {int(worst.sum())} positions for a table of {rows} x {columns} "
            f"codes in use: paired at random, they show {baseline:.3g} nats. This pair shares {plugin:.4g} nats by "
            f'"plugin", {mutual_information_nats(worst, "miller_madow"):.4g} by "miller_madow" and '
            f'{plugin - baseline:.4g} by "shuffle", which is right for independent codes; "miller_madow" is for '
            "codes so dependent that few pairs of them occur; count more images",
            UserWarning,
            stacklevel=3,
        )
