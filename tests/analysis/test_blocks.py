import math

import numpy as np
import pytest
from scipy.stats import t as student_t

from depthq.analysis import (
    CodeCounts,
    block_interval,
    bootstrap_interval,
    code_entropy,
    mutual_information_nats,
    pairwise_mutual_information,
)
from depthq.analysis.blocks import student_t_bound

SHARES = np.full((4, 4), 0.4 / 16) + np.diag(np.full(4, 0.6 / 4))  # codes of two codebooks at one position
TRUTH = float((SHARES * np.log(SHARES * 16)).sum())


def maps(images: int, seed: int, alike: float = 0.8) -> np.ndarray:
    """Codes (B, 2, 16): each position has its image's pair of codes with probability `alike`, else one of its own."""
    rng = np.random.default_rng(seed)
    pairs = rng.choice(16, (images, 17), p=SHARES.ravel())
    pairs = np.where(rng.random((images, 16)) < alike, pairs[:, :1], pairs[:, 1:])
    return np.stack(np.divmod(pairs, 4), axis=1)


def in_blocks(codes: np.ndarray, num_blocks: int = 10) -> list[CodeCounts]:
    return [CodeCounts([4, 4]).update(part) for part in np.array_split(codes, num_blocks)]


def mean_nats(counts: CodeCounts) -> float:
    return pairwise_mutual_information(counts).mean_pairwise_nats


def test_intervals_cover_the_truth_where_positions_of_an_image_are_alike():
    samples = [maps(300, seed) for seed in range(100)]
    intervals = [block_interval(in_blocks(codes), mean_nats) for codes in samples]
    covered = np.mean([each.lower_nats <= TRUTH <= each.upper_nats for each in intervals])
    assert 0.88 <= covered <= 1  # 0.95 - 3 standard errors
    joints = [CodeCounts([4, 4]).update(codes).joint((0, 0), (0, 1)) for codes in samples[:30]]
    of_positions = [bootstrap_interval(joint, mutual_information_nats, num_resamples=50) for joint in joints]
    assert np.mean([each.lower_nats <= TRUTH <= each.upper_nats for each in of_positions]) < 0.7


def test_the_interval_of_a_mean_is_that_of_its_blocks_by_student():
    """Any figure will do: of a mean, the jackknife is the textbook's interval."""
    rows = [np.array([[0]] * (10 - ones) + [[1]] * ones) for ones in (2, 3, 7)]
    blocks = [CodeCounts([2]).update(row) for row in rows]
    interval = block_interval(blocks, lambda counts: float(counts.marginal()[0, 1] / counts.marginal().sum()))
    half = 4.302653 * np.std([0.2, 0.3, 0.7], ddof=1) / math.sqrt(3)  # t of 2 degrees of freedom
    assert interval.estimate_nats == pytest.approx(0.4)
    assert (interval.lower_nats, interval.upper_nats) == pytest.approx((0.4 - half, 0.4 + half), rel=1e-6)


def test_bias_is_taken_off():
    codes = np.random.default_rng(0).integers(0, 16, (40, 1000, 1))  # 40 samples of 1,000
    of_samples = [
        block_interval(
            [CodeCounts([16]).update(part) for part in np.array_split(sample, 10)],
            lambda counts: float(code_entropy(counts).entropy_nats),
        )
        for sample in codes
    ]
    centres = [(each.lower_nats + each.upper_nats) / 2 for each in of_samples]
    assert np.mean([each.estimate_nats for each in of_samples]) == pytest.approx(math.log(16) - 15 / 2000, abs=1e-3)
    assert np.mean(centres) == pytest.approx(math.log(16), abs=1e-3)


def test_what_is_to_be_doubted_is_told_once():
    blocks = [CodeCounts([8, 8]).update(np.random.default_rng(seed).integers(0, 8, (20, 2))) for seed in range(4)]
    with pytest.warns(UserWarning, match="only 80 positions for a table of 8 x 8") as caught:
        block_interval(blocks, mean_nats)
    assert len(caught) == 1


def test_blocks_are_left_as_they_were():
    blocks = in_blocks(maps(40, seed=0))
    before = [block.marginal().tolist() for block in blocks]
    block_interval(blocks, mean_nats)
    assert [block.marginal().tolist() for block in blocks] == before


def test_blocks_that_do_not_tell_a_spread_are_refused():
    block = CodeCounts([4, 4]).update(maps(40, seed=0))
    with pytest.raises(ValueError, match=r"blocks must be two or more that hold images, each; got 1, 1 of which do"):
        block_interval([block], mean_nats)
    with pytest.raises(ValueError, match=r"got 2, 1 of which do; count images in turn into several CodeCounts"):
        block_interval([block, CodeCounts([4, 4])], mean_nats)
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\); got 95"):
        block_interval([block, block], mean_nats, confidence=95)
    with pytest.raises(ValueError, match=r"other must have codebook_sizes \(\(4, 4\),\); got \(\(4,\),\)"):
        block_interval([block, CodeCounts([4]).update(np.zeros((5, 1, 16), dtype=int))], mean_nats)


@pytest.mark.parametrize("degrees_of_freedom", [1, 2, 3, 4, 9, 10, 99, 100])
@pytest.mark.parametrize("probability", [0.01, 0.5, 0.95, 0.9999])
def test_bound_of_student_t_agrees_with_scipy(probability, degrees_of_freedom):
    expected = student_t.ppf((1 + probability) / 2, degrees_of_freedom)
    assert student_t_bound(probability, degrees_of_freedom) == pytest.approx(expected, rel=1e-9)


def test_bound_of_one_degree_of_freedom_is_that_of_the_cauchy_distribution():
    assert student_t_bound(0.5, 1) == pytest.approx(1)
