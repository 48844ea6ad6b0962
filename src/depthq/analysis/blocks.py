"""Intervals that take the image for the unit, from counts of blocks of images."""

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import combinations

import torch

from depthq.analysis.bootstrap import Interval
from depthq.analysis.counting import CodeCounts


def block_interval(
    blocks: Sequence[CodeCounts], metric_nats: Callable[[CodeCounts], float], *, confidence: float = 0.95
) -> Interval:
    """Interval for any figure of counted codes, where positions of one image are alike.

    Each block is left out once. How much the figure then changes tells its error over images, whatever positions of
    one image share, and its bias to first order, which is taken off (delete-one-block jackknife, with Student's t of
    one degree of freedom fewer than blocks).

    Bias of higher order is left where a table is sampled thinly, below about twenty positions for each pair of codes
    in use; a figure that draws at random, as "shuffle" does, has the scatter of its draws in the interval, and more of
    it the more blocks there are.

    Args:
        blocks: Counts of disjoint sets of images, two or more (ten are enough), each of about as many images.
        metric_nats: Of `CodeCounts`, in nats. It is called on the counts of all blocks, and of all but each.
        confidence: In (0, 1).

    Raises:
        ValueError: If there are fewer than two blocks, one of them holds nothing, they are of different codebooks or
            positions, or confidence is out of range.

    Example:
        >>> coins = np.random.default_rng(0).integers(0, 2, (10, 50, 2))
        >>> blocks = [CodeCounts([2, 2]).update(block) for block in coins]
        >>> mean = block_interval(blocks, lambda counts: pairwise_mutual_information(counts).mean_pairwise_nats)
        >>> mean.lower_nats < 0 < mean.upper_nats
        True
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}")
    if len(blocks) < 2 or any(block.grids is None for block in blocks):
        held = sum(block.grids is not None for block in blocks)
        raise ValueError(
            f"blocks must be two or more that hold images, each; got {len(blocks)}, {held} of which do; count images "
            "in turn into several CodeCounts"
        )
    estimate = float(metric_nats(_merged(blocks)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is to be doubted of a part was told of the whole
        figures = [float(metric_nats(_merged(others))) for others in combinations(blocks, len(blocks) - 1)]
    without = torch.tensor(figures, dtype=torch.float64)
    spread = (len(blocks) - 1) * without.var(correction=0)
    half = student_t_bound(confidence, len(blocks) - 1) * math.sqrt(spread)
    centre = len(blocks) * estimate - (len(blocks) - 1) * float(without.mean())
    return Interval(estimate, centre - half, centre + half, confidence)


def student_t_bound(probability: float, degrees_of_freedom: int) -> float:
    """The t for which |T| <= t has that probability, in (0, 1), T being Student's with so many degrees of freedom."""
    low, high = 0.0, math.pi / 2  # the angle whose tangent is t / sqrt(degrees of freedom)
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _probability_within(middle, degrees_of_freedom) < probability else (low, middle)
    return math.sqrt(degrees_of_freedom) * math.tan(low)


def _probability_within(angle: float, degrees_of_freedom: int) -> float:
    """P(|T| <= t), a finite sum for whole degrees of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4)."""
    is_odd = degrees_of_freedom % 2
    cosine = math.cos(angle)
    term, total = (cosine if is_odd else 1.0), 0.0
    for power in range(is_odd, degrees_of_freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + math.sin(angle) * total) if is_odd else math.sin(angle) * total


def _merged(blocks: Sequence[CodeCounts]) -> CodeCounts:
    merged = CodeCounts(blocks[0].codebook_sizes, limit_bytes=blocks[0].limit_bytes)
    for block in blocks:
        merged.merge(block)
    return merged
