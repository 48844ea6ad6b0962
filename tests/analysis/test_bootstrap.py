import math

import numpy as np
import pytest
import torch

from depthq.analysis import bootstrap_interval, entropy_nats, mutual_information_nats
from depthq.analysis.entropy import EntropyEstimator


def coverage(
    statistic,
    truth: float,
    shares: np.ndarray,
    samples: int,
    estimator: EntropyEstimator = "miller_madow",
    trials: int = 150,
) -> float:
    """Share of samples drawn from `shares` whose 90 % interval holds the truth."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(trials):
        counts = torch.from_numpy(rng.multinomial(samples, shares.ravel()).reshape(shares.shape))
        interval = bootstrap_interval(counts, statistic, estimator, num_resamples=100, confidence=0.9)
        covered += interval.lower_nats <= truth <= interval.upper_nats
    return covered / trials


def test_entropy_intervals_cover_the_truth_as_often_as_they_say():
    shares = np.arange(1, 11) / 55
    truth = float(-(shares * np.log(shares)).sum())
    assert 0.83 <= coverage(entropy_nats, truth, shares, samples=300) <= 0.97  # 0.90 +- 3 standard errors


def test_mutual_information_intervals_cover_the_truth_as_often_as_they_say():
    shares = np.full((4, 4), 0.1 / 12)
    np.fill_diagonal(shares, 0.9 / 4)
    truth = float((shares * np.log(shares * 16)).sum())
    assert 0.83 <= coverage(mutual_information_nats, truth, shares, samples=400) <= 0.97


@pytest.mark.parametrize("estimator", ["plugin", "miller_madow"])
def test_twenty_counts_per_cell_suffice(estimator):
    shares = np.full((16, 16), 0.5 / 256)
    np.fill_diagonal(shares, 0.5 / 256 + 0.5 / 16)
    truth = float((shares * np.log(shares * 256)).sum())
    found = coverage(mutual_information_nats, truth, shares, samples=20 * 256, estimator=estimator, trials=50)
    assert 0.77 <= found <= 1  # 0.90 - 3 standard errors
    assert 0.77 <= coverage(entropy_nats, math.log(64), np.full(64, 1 / 64), 20 * 64, estimator, trials=50) <= 1


@pytest.mark.parametrize(
    ("statistic", "shares", "samples"),
    [
        (
            mutual_information_nats,
            0.005 / 16**2 + 0.995 / 16 * np.eye(16),
            20 * 16**2,
        ),  # codes nearly determine each other
        (entropy_nats, np.array([0.98] + 99 * [0.02 / 99]), 20 * 100),  # one code, and many rare ones
    ],
)
def test_what_is_rare_and_was_mostly_missed_is_allowed_for(statistic, shares, samples):
    """Resampling the observed shares alone held the truth in 54 and 74 % of these samples."""
    given = [shares] if shares.ndim == 1 else [shares.sum(1), shares.sum(0), shares.ravel()]
    entropies = [float(-(part * np.log(part)).sum()) for part in given]
    truth = entropies[0] if len(entropies) == 1 else entropies[0] + entropies[1] - entropies[2]
    assert coverage(statistic, truth, shares, samples, trials=60) >= 0.78  # 0.90 - 3 standard errors


def test_a_sample_of_a_single_code_may_have_missed_others():
    interval = bootstrap_interval(np.array([1000, 0]))
    assert interval.estimate_nats == interval.lower_nats == 0
    share = 3 / 1000  # one sample in twenty shows nothing of it
    assert interval.upper_nats == pytest.approx(-share * math.log(share) + share, rel=0.1)


def test_fewer_counts_per_cell_warn_with_the_bias_to_expect():
    few = torch.randint(1, 3, (64, 64), generator=torch.Generator().manual_seed(0))
    bias = 63 * 63 / (2 * int(few.sum()))
    with pytest.warns(
        UserWarning,
        match=rf"only {int(few.sum())} counts for a table of 64 x 64 codes in use: .* about {bias:.3g} nats",
    ):
        bootstrap_interval(few, mutual_information_nats, num_resamples=2)
    with pytest.warns(
        UserWarning, match=r"only 4 counts for a table of 2 codes in use: .* 0\.125 nats.* from about 40 counts"
    ):
        bootstrap_interval(np.array([3, 1, 0]))


def test_cells_that_no_sample_hit_count_among_those_to_be_sampled():
    shares = 0.1 / 32**2 + 0.9 / 32 * np.eye(32)  # dependent: ten counts per cell, most of them on the diagonal
    few = np.random.default_rng(0).multinomial(10 * 32**2, shares.ravel()).reshape(32, 32)
    with pytest.warns(UserWarning, match="a table of 32 x 32 codes in use: .* from about 20480 counts"):
        bootstrap_interval(few, mutual_information_nats, num_resamples=2)


def test_no_interval_goes_beyond_what_codes_can_say():
    with pytest.warns(UserWarning, match="only 5 counts"):
        assert bootstrap_interval(np.array([1, 1, 1, 2])).upper_nats == pytest.approx(math.log(4), abs=1e-12)
    with pytest.warns(UserWarning, match="only 9 counts"):
        interval = bootstrap_interval(np.array([[4, 0, 0], [0, 3, 2]]), mutual_information_nats)
    assert interval.upper_nats == pytest.approx(math.log(2), abs=1e-12)


def test_the_interval_is_the_same_around_either_estimate():
    counts = torch.tensor([30, 20, 50])
    plugin, corrected = (bootstrap_interval(counts, estimator=name) for name in ("plugin", "miller_madow"))
    assert plugin.estimate_nats < corrected.estimate_nats
    assert (plugin.lower_nats, plugin.upper_nats) == (corrected.lower_nats, corrected.upper_nats)


def test_interval_shrinks_with_the_root_of_the_sample():
    few = bootstrap_interval(torch.tensor([10, 20, 30]))
    many = bootstrap_interval(torch.tensor([1000, 2000, 3000]))
    ratio = (few.upper_nats - few.lower_nats) / (many.upper_nats - many.lower_nats)
    assert ratio == pytest.approx(10, rel=0.3)


def test_estimate_is_that_of_the_estimator_and_the_seed_repeats():
    counts = torch.tensor([30, 20, 50])
    interval = bootstrap_interval(counts, estimator="plugin")
    assert interval.estimate_nats == float(entropy_nats(counts))
    assert interval == bootstrap_interval(counts, estimator="plugin")
    assert interval.upper_bits == pytest.approx(interval.upper_nats / math.log(2))
    assert interval.estimate_bits == pytest.approx(interval.estimate_nats / math.log(2))
    assert interval.lower_bits < float(interval.estimate_nats) / math.log(2) < interval.upper_bits


def test_an_interval_of_independent_codes_ends_at_zero():
    interval = bootstrap_interval(torch.full((4, 4), 20), mutual_information_nats)  # the estimate is below 0
    assert interval.estimate_nats == pytest.approx(-9 / 640)
    assert interval.lower_nats == 0 <= interval.upper_nats


def test_bad_arguments_are_refused():
    counts = torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\); got 95"):
        bootstrap_interval(counts, confidence=95)
    with pytest.raises(ValueError, match="estimator must be one of plugin, miller_madow; got 'shuffle'"):
        bootstrap_interval(counts, mutual_information_nats, "shuffle")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"counts must be integers; got torch\.float32"):
        bootstrap_interval(torch.tensor([0.4, 0.6]))
    with pytest.raises(ValueError, match="num_resamples must be at least 2; got 1"):
        bootstrap_interval(counts, num_resamples=1)
    with pytest.raises(
        ValueError,
        match=r"counts must be \(K,\) for entropy_nats; got shape \(2, 2\); pass mutual_information_nats for",
    ):
        bootstrap_interval(torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="counts must hold at least one count"):
        bootstrap_interval(torch.zeros(3, dtype=torch.int64))
