import math

import pytest
import torch

from depthq.analysis import CodeCounts, summarize_codes

LN2 = math.log(2)


def bits(images: int, seed: int) -> torch.Tensor:
    """A fair coin per image, (B, 1, 1, 1), heads as often as tails."""
    coin = torch.arange(images) % 2
    return coin[torch.randperm(images, generator=torch.Generator().manual_seed(seed))].view(-1, 1, 1, 1)


def test_twice_the_same_fair_bit():
    coin = bits(400, seed=0)
    summary = summarize_codes(CodeCounts([2, 2]).update(coin.expand(-1, 2, -1, -1)))
    (level,) = summary.levels
    assert summary.images == level.positions == 400
    assert summary.codebooks == ["0.0", "0.1"]
    assert (level.grid, level.codebook_sizes, level.usage) == ([1, 1], [2, 2], [1.0, 1.0])
    assert level.entropy_nats == pytest.approx([LN2, LN2])
    assert level.entropy_bits == pytest.approx([1.0, 1.0])
    assert level.entropy_miller_madow_nats == pytest.approx([LN2 + 1 / 800] * 2)
    assert level.perplexity == pytest.approx([2.0, 2.0])
    assert level.mean_entropy_nats == pytest.approx(LN2)
    assert level.position_entropy_nats == [[pytest.approx(LN2)]]
    pairs = summary.plugin
    assert torch.tensor(pairs.matrix_nats) == pytest.approx(torch.full((2, 2), LN2))
    assert pairs.mean_pairwise_nats == pytest.approx(LN2)
    assert pairs.mean_within_level_nats == [pytest.approx(LN2)]
    assert pairs.mean_across_levels_nats is None
    assert pairs.total_correlation_lower_nats == pytest.approx(LN2)
    assert pairs.total_correlation_upper_nats == pytest.approx(LN2)
    assert summary.warnings == []


def test_pairs_within_and_across_levels_are_told_apart():
    """Level 0 holds one coin twice; level 1 holds that coin and another."""
    coin, other = bits(4000, seed=0), bits(4000, seed=1)
    levels = [torch.cat([coin, coin], dim=1), torch.cat([coin, other], dim=1)]
    pairs = summarize_codes(CodeCounts([[2, 2], [2, 2]]).update(levels)).plugin
    assert pairs.mean_within_level_nats == pytest.approx([LN2, 0], abs=1e-3)
    assert pairs.mean_across_levels_nats == pytest.approx(LN2 / 2, abs=1e-3)
    assert pairs.mean_pairwise_nats == pytest.approx((LN2 + 0 + 4 * LN2 / 2) / 6, abs=1e-3)


def test_total_correlation_of_a_level_is_exact_where_its_table_fits():
    """The third coin is the parity of the other two: pairs share nothing, the three of them one bit."""
    coin, other = bits(4000, seed=0), bits(4000, seed=1)
    summary = summarize_codes(CodeCounts([2, 2, 2]).update(torch.cat([coin, other, coin ^ other], dim=1)))
    assert summary.levels[0].total_correlation_nats == pytest.approx(LN2, abs=1e-3)
    assert summary.levels[0].total_correlation_miller_madow_nats == pytest.approx(LN2, abs=1e-3)
    assert summary.plugin.total_correlation_lower_nats == pytest.approx(0, abs=1e-3)


def test_total_correlation_of_a_level_of_too_many_combinations_is_none():
    level = summarize_codes(CodeCounts([512] * 3).update(bits(40, seed=0).expand(-1, 3, -1, -1))).levels[0]
    assert level.total_correlation_nats is None
    assert level.total_correlation_miller_madow_nats is None


def test_correction_takes_the_bias_off_independent_codes():
    codes = torch.randint(0, 16, (300, 2, 1, 1), generator=torch.Generator().manual_seed(0))
    summary = summarize_codes(CodeCounts([16, 16]).update(codes))
    assert [pairs.estimator for pairs in summary.mutual_information] == ["plugin", "shuffle", "miller_madow"]
    assert summary.plugin.mean_pairwise_nats > 0.3
    assert summary.shuffle.mean_pairwise_nats == pytest.approx(0, abs=0.1)


def test_one_code_told_twice_is_left_whole_by_miller_madow():
    code = torch.randint(0, 128, (1000, 1, 1, 1), generator=torch.Generator().manual_seed(0))
    summary = summarize_codes(CodeCounts([128, 128]).update(code.expand(-1, 2, -1, -1)))
    assert summary.miller_madow.mean_pairwise_nats == pytest.approx(math.log(128), abs=0.02)
    assert summary.shuffle.mean_pairwise_nats < 2.5
    assert sum("paired at random" in warning for warning in summary.warnings) == 1


@pytest.mark.parametrize("positions", [(), (3,), (2, 3), (2, 1, 3)])
def test_positions_of_any_rank_say_the_same(positions):
    """A fair coin per image, at all of its positions."""
    codes = bits(400, seed=0).view(400, 1, *[1] * len(positions)).expand(400, 2, *positions)
    summary = summarize_codes(CodeCounts([2, 2]).update(codes))
    (level,) = summary.levels
    assert (summary.images, level.grid, level.positions) == (400, list(positions), 400 * math.prod(positions))
    assert level.mean_entropy_nats == pytest.approx(LN2)
    assert torch.tensor(level.position_entropy_nats).numpy() == pytest.approx(torch.full(positions, LN2).numpy())
    assert summary.plugin.mean_pairwise_nats == pytest.approx(LN2)


def test_pairs_that_would_not_fit_are_left_out_and_told_of():
    codes = torch.randint(0, 65_536, (5000, 2), generator=torch.Generator().manual_seed(0))
    codes[:, 1] %= 2
    summary = summarize_codes(CodeCounts([65_536, 65_536], limit_bytes=2**30).update(codes))
    (level,) = summary.levels
    assert level.perplexity[1] == pytest.approx(2, abs=0.01)
    assert level.usage[1] == 2 / 65_536
    assert level.total_correlation_nats is None
    assert [pairs.estimator for pairs in summary.mutual_information] == ["plugin", "shuffle", "miller_madow"]
    for pairs in summary.mutual_information:
        assert pairs.mean_within_level_nats == [None]
        assert pairs.matrix_nats is pairs.mean_pairwise_nats is pairs.total_correlation_lower_nats is None
    assert summary.warnings[0].startswith(
        "mutual information and total correlation are left out: their tables would take 34,359,738,368 bytes, "
        "more than 1,073,741,824; count fewer codebooks at a time"
    )


def test_positions_that_would_not_fit_are_left_out_and_told_of():
    codes = bits(400, seed=0).expand(400, 1, 20, 20)
    summary = summarize_codes(CodeCounts([2], limit_bytes=8 * 2 * 400 - 1).update(codes))
    assert summary.images == 400
    assert summary.levels[0].grid == [20, 20]
    assert summary.levels[0].entropy_nats == pytest.approx([LN2])
    assert summary.levels[0].position_entropy_nats is None
    assert summary.warnings == ["entropy per position is left out: its tables would take 6,400 bytes, more than 6,399"]


def test_few_samples_are_told_in_the_summary():
    codes = torch.randint(0, 16, (30, 2, 1, 1), generator=torch.Generator().manual_seed(0))
    warnings = summarize_codes(CodeCounts([16, 16]).update(codes)).warnings
    assert any("30 positions" in warning and "nats" in warning for warning in warnings)
    assert any("total correlation" in warning and "no lower bound" in warning for warning in warnings)


def test_images_needed_are_more_than_there_are_where_any_figure_is_in_doubt():
    codes = torch.randint(0, 16, (3000, 3), generator=torch.Generator().manual_seed(0))
    summary = summarize_codes(CodeCounts([16, 16, 16]).update(codes))
    (doubt,) = summary.warnings  # pairs have samples enough; all three together have not
    assert doubt.startswith("total_correlation_nats has only 3000 samples for")
    assert summary.has_too_few_images
    assert summary.images_needed == 5 * len(codes.unique(dim=0)) > 3000


def test_a_single_codebook_has_no_pairs():
    pairs = summarize_codes(CodeCounts([2]).update(bits(20, seed=0))).plugin
    assert pairs.mean_pairwise_nats is None
    assert pairs.mean_within_level_nats == [None]
    assert pairs.total_correlation_lower_nats == 0
