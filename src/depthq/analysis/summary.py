"""What the codes of a sample say and share, as plain numbers: the content of analysis.json."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from depthq.analysis.counting import CodeCounts
from depthq.analysis.entropy import SAMPLES_PER_CODE, code_entropy, entropy_nats, position_entropy_nats
from depthq.analysis.mutual_information import SAMPLES_PER_CELL, Estimator, pairwise_mutual_information
from depthq.analysis.total_correlation import joint_entropy_bounds, total_correlation_nats

ESTIMATORS: tuple[Estimator, ...] = ("plugin", "shuffle", "miller_madow")


# A figure for each position of a level, as lists within lists: a map (H, W) is H lists of W numbers, rows without
# positions a single number.
PositionFigures = float | list["PositionFigures"]


@dataclass(frozen=True)
class LevelSummary:
    """The codebooks of one level; lists have one entry per codebook. Entropies are plug-in unless named otherwise."""

    grid: list[int]
    """Shape of the level's positions: height and width of an image's, the length of a sequence, none of rows."""
    positions: int
    """Positions counted, over all images."""
    codebook_sizes: list[int]
    """K."""
    entropy_nats: list[float]
    """Of one code, 0..log K."""
    entropy_bits: list[float]
    """The same in bits, 0..log2 K."""
    entropy_miller_madow_nats: list[float]
    """Corrected for the size of the sample."""
    perplexity: list[float]
    """exp(entropy in nats), 1..K."""
    usage: list[float]
    """Share of the K codes that occur, 0..1."""
    mean_entropy_nats: float
    """Mean over codebooks of the entropy of one code: the paper's "entropy"."""
    position_entropy_nats: PositionFigures | None
    """Entropy over images of the code at each position, mean over codebooks (Fig. 3, left); of maps H rows of W. None
    where positions are not told apart."""
    total_correlation_nats: float | None = None
    """What the sum of the codebooks' entropies counts more than once, from the table of all of them; None where that
    has too many cells, or is left out."""
    total_correlation_miller_madow_nats: float | None = None
    """Corrected for the size of the sample."""


@dataclass(frozen=True)
class PairSummary:
    """What codebooks share, by one estimator; None where there is no pair, or joint tables are left out."""

    estimator: str
    """Of mutual information: on few samples plugin is too high unless codes depend strongly on each other; shuffle
    is right for independent codes, miller_madow for those that depend so strongly that few pairs of them occur."""
    mean_pairwise_nats: float | None
    """Mean over all pairs of different codebooks."""
    mean_within_level_nats: list[float | None]
    """Mean over the pairs of each level: the paper's "mean MI"."""
    mean_across_levels_nats: float | None
    """Mean over pairs of codebooks of different levels, at the positions of the finer one."""
    total_correlation_lower_nats: float | None
    """What the sum of all codebooks' entropies counts more than once, per position: at least ... (as high or low as the
    pairs are by this estimator, so that from few samples plugin gives no lower bound)"""
    total_correlation_upper_nats: float | None
    """... and at most."""
    matrix_nats: list[list[float]] | None
    """Mutual information of each pair, entropy on the diagonal; rows and columns in the order of `codebooks`."""


@dataclass(frozen=True)
class CodeSummary:
    """All metrics of a sample of codes that do not need the model."""

    images: int
    levels: list[LevelSummary]
    """Coarse to fine."""
    codebooks: list[str]
    """"level.codebook" of each row and column of the matrices."""
    mutual_information: list[PairSummary]
    """By plugin, shuffle and miller_madow, in this order."""
    warnings: list[str]
    """Which metrics rest on too few samples, with the bias to expect; and which were left out, and why."""
    left_out: list[str]
    """Of these, which were left out."""
    images_needed: int
    """About so many images are needed at least for all metrics that are there: for the codes, and the combinations of
    them, that occurred."""

    @property
    def has_too_few_images(self) -> bool:
        """Whether a metric rests on too few."""
        return len(self.warnings) > len(self.left_out)

    @property
    def plugin(self) -> PairSummary:
        return self.mutual_information[0]

    @property
    def shuffle(self) -> PairSummary:
        return self.mutual_information[1]

    @property
    def miller_madow(self) -> PairSummary:
        return self.mutual_information[2]


def summarize_codes(counts: CodeCounts) -> CodeSummary:
    """Entropy, usage, mutual information and total correlation of counted codes.

    Args:
        counts: Of codes (N, M) or (B, M, *positions), one or more levels. Figures whose tables `counts` left out are
            None, and `warnings` says so.

    Raises:
        ValueError: If nothing has been counted.
    """
    with _collected_warnings() as level_doubts:
        levels = [_level_summary(counts, level) for level in range(len(counts.codebook_sizes))]
    with _collected_warnings() as pair_doubts:
        pairs = [_pair_summary(counts, estimator) for estimator in ESTIMATORS]
    left_out = _left_out(counts)
    return CodeSummary(
        images=counts.num_images,
        levels=levels,
        codebooks=[f"{level}.{index}" for level, index in counts.codebooks],
        mutual_information=pairs,
        warnings=[
            *left_out,
            *level_doubts,
            *pair_doubts,
            *([_total_correlation_doubt(*pairs)] if pair_doubts else []),
        ],
        left_out=left_out,
        images_needed=_images_needed(counts),
    )


def _images_needed(counts: CodeCounts) -> int:
    """For plug-in entropy at each position, and for the tables of each pair and of each whole level."""
    used = [(counts.marginal(level) > 0).sum(-1) for level in range(len(counts.codebook_sizes))]
    needed = SAMPLES_PER_CODE["plugin"] * max(int(of_level.max()) for of_level in used)
    for level, grid in enumerate(counts.grids or ()):
        table = counts.joint_of_level(level)
        if table is not None:
            rows_per_image = int((table > 0).sum()) / math.prod(grid)
            needed = max(needed, math.ceil(SAMPLES_PER_CODE["plugin"] * rows_per_image))
    if counts.has_pairs:
        for a, b in combinations(counts.codebooks, 2):
            joint = counts.joint(a, b)
            cells = int((joint.sum(1) > 0).sum()) * int((joint.sum(0) > 0).sum())
            positions_per_image = int(joint.sum()) / counts.num_images
            needed = max(needed, math.ceil(SAMPLES_PER_CELL["plugin"] * cells / positions_per_image))
    return needed


def _level_summary(counts: CodeCounts, level: int) -> LevelSummary:
    entropy = code_entropy(counts, level)
    assert counts.grids is not None
    has_table = counts.joint_of_level(level) is not None
    return LevelSummary(
        grid=list(counts.grids[level]),
        positions=entropy.num_samples,
        codebook_sizes=list(counts.codebook_sizes[level]),
        entropy_nats=entropy.entropy_nats.tolist(),
        entropy_bits=entropy.entropy_bits.tolist(),
        entropy_miller_madow_nats=entropy_nats(counts.marginal(level), "miller_madow").tolist(),
        perplexity=entropy.perplexity.tolist(),
        usage=entropy.usage.tolist(),
        mean_entropy_nats=float(entropy.entropy_nats.mean()),
        position_entropy_nats=(position_entropy_nats(counts, level).mean(0).tolist() if counts.has_positions else None),
        total_correlation_nats=total_correlation_nats(counts, level=level) if has_table else None,
        total_correlation_miller_madow_nats=(
            total_correlation_nats(counts, "miller_madow", level=level) if has_table else None
        ),
    )


def _left_out(counts: CodeCounts) -> list[str]:
    notes = []
    if not counts.has_pairs:
        notes.append(
            f"mutual information and total correlation are left out: their tables would take {counts.joint_bytes:,} "
            f"bytes, more than {counts.limit_bytes:,}; count fewer codebooks at a time"
        )
    if not counts.has_positions:
        notes.append(
            f"entropy per position is left out: its tables would take {counts.position_bytes:,} bytes, more than "
            f"{counts.limit_bytes:,}"
        )
    return notes


def _pair_summary(counts: CodeCounts, estimator: Estimator) -> PairSummary:
    if not counts.has_pairs:
        return PairSummary(estimator, None, [None] * len(counts.codebook_sizes), None, None, None, None)
    information = pairwise_mutual_information(counts, estimator=estimator)
    level_of = torch.tensor([level for level, _ in information.codebooks])
    different = ~torch.eye(len(level_of), dtype=torch.bool)
    same_level = level_of[:, None] == level_of[None, :]
    bounds = joint_entropy_bounds(information)
    matrix = information.matrix_nats
    return PairSummary(
        estimator=information.estimator,
        mean_pairwise_nats=_mean(matrix[different]),
        mean_within_level_nats=[
            _mean(matrix[different & same_level & (level_of == level)]) for level in level_of.unique()
        ],
        mean_across_levels_nats=_mean(matrix[~same_level]),
        total_correlation_lower_nats=bounds.total_correlation_lower_nats,
        total_correlation_upper_nats=bounds.total_correlation_upper_nats,
        matrix_nats=matrix.tolist(),
    )


def _total_correlation_doubt(plugin: PairSummary, shuffle: PairSummary, miller_madow: PairSummary) -> str:
    return (
        f"total correlation of at least {plugin.total_correlation_lower_nats:.4g} nats is a plug-in figure too, and on "
        f"so few positions no lower bound: the same pairs give {shuffle.total_correlation_lower_nats:.4g} by "
        f'"shuffle" and {miller_madow.total_correlation_lower_nats:.4g} by "miller_madow"; count more images'
    )


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if values.numel() else None


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """A list that holds, behind the block, the user warnings that it raised."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield messages
    messages += dict.fromkeys(str(warning.message) for warning in caught)  # estimators may doubt the same pair
