"""Mutual information between codebooks, from joint counts (Eq. 7)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from depthq.analysis.counting import Codebook, CodeCounts
from depthq.analysis.entropy import check_estimator, entropy_nats
from depthq.units import nats_to_bits

Estimator = Literal["plugin", "miller_madow", "shuffle"]
Normalizer = Literal["min", "geometric", "arithmetic", "max", "joint"]

# Samples per cell of the joint table below which an estimate is about 0.1 nats or more from the truth.
SAMPLES_PER_CELL = {"plugin": 5, "miller_madow": 2, "shuffle": 0}


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


def mutual_information_nats(joint: Tensor, estimator: Estimator = "plugin", *, seed: int = 0) -> float:
    """Mutual information of two variables, I = H(a) + H(b) - H(a, b); relabelling codes does not change it.

    The plug-in estimate from a finite sample is too high, by (K_a - 1)(K_b - 1) / (2 N) for independent
    variables. "miller_madow" corrects the three entropies, and holds from about two samples per cell of the
    table. "shuffle" subtracts what the same marginals give when they are paired at random; it is right for
    independent variables at any sample size, and takes away too much from strongly dependent ones.

    Args:
        joint: int64 (K_a, K_b), at least one count.
        estimator: "plugin", "miller_madow" or "shuffle".
        seed: Of the random pairing.

    Returns:
        Nats; corrected estimates may be negative.

    Raises:
        ValueError: If the table is not 2-D or without counts, or the estimator is unknown.
    """
    check_estimator(estimator, SAMPLES_PER_CELL)
    if joint.dim() != 2:
        raise ValueError(f"joint must be (K_a, K_b); got shape {tuple(joint.shape)}")
    if estimator == "shuffle":
        return mutual_information_nats(joint) - shuffled_mutual_information_nats(joint, seed=seed)
    parts = [entropy_nats(part, estimator) for part in (joint.sum(1), joint.sum(0), joint.flatten())]
    information = float(parts[0] + parts[1] - parts[2])
    return max(information, 0.0) if estimator == "plugin" else information


def shuffled_mutual_information_nats(joint: Tensor, *, num_shuffles: int = 4, seed: int = 0) -> float:
    """Plug-in mutual information left when one variable's codes are permuted at random: its bias.

    The permuted sample's table is drawn straight from the marginals, row by row without replacement, which
    has the same distribution as permuting the codes and does not need them.

    Raises:
        ValueError: If the table holds 10^9 counts or more, where the draw is not defined and the bias is nil.
    """
    rows, columns = joint.sum(1).cpu().numpy(), joint.sum(0).cpu().numpy()
    rows, columns = rows[rows > 0], columns[columns > 0]
    if rows.sum() >= 10**9:
        raise ValueError(f"joint must hold fewer than 10^9 counts to be shuffled; got {rows.sum()}; use miller_madow")
    rng = np.random.default_rng(seed)
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

    Warns:
        UserWarning: If there are too few samples per pair of codes, with the bias to expect and the corrected
        figure.
    """
    check_estimator(estimator, SAMPLES_PER_CELL)
    chosen = range(len(counts.codebook_sizes)) if levels is None else levels
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


def _draw_independent_table(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A table with these marginals, all pairings of the sample being equally likely."""
    left, table = columns.copy(), np.empty((len(rows), len(columns)), dtype=np.int64)
    for row, count in enumerate(rows):
        table[row] = rng.multivariate_hypergeometric(left, count, method="marginals")
        left -= table[row]
    return table


def _warn_if_undersampled(counts: CodeCounts, information: MutualInformation) -> None:
    bias, worst = 0.0, None
    for j, b in enumerate(information.codebooks):
        for a in information.codebooks[:j]:
            joint = counts.joint(a, b)
            samples, used = int(joint.sum()), (int((joint.sum(1) > 0).sum()), int((joint.sum(0) > 0).sum()))
            expected = (used[0] - 1) * (used[1] - 1) / (2 * samples)
            if samples < SAMPLES_PER_CELL[information.estimator] * used[0] * used[1] and expected > bias:
                bias, worst = expected, (samples, used, joint)
    if worst is not None:
        samples, used, joint = worst
        warnings.warn(
            f"pairwise_mutual_information has only {samples} positions for a table of {used[0]} x {used[1]} "
            "codes in use: plug-in mutual information is too high, by the order of "
            f"(K_a - 1)(K_b - 1) / (2 N) = {bias:.3g} nats. Of this pair it is "
            f"{mutual_information_nats(joint):.4g} nats, and {mutual_information_nats(joint, 'shuffle'):.4g} nats "
            'after shuffle correction; count more images, or pass estimator="shuffle"',
            UserWarning,
            stacklevel=3,
        )
