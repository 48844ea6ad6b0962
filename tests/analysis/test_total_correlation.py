import math

import numpy as np
import pytest
import torch

from depthq.analysis import (
    CodeCounts,
    joint_entropy_bounds,
    joint_entropy_nats,
    pairwise_mutual_information,
    total_correlation_nats,
)
from depthq.codes import Codes

XOR = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]] * 25)


def bounds_of(codes: np.ndarray):
    counts = CodeCounts((codes.max(0) + 1).tolist()).update(codes)
    return joint_entropy_bounds(pairwise_mutual_information(counts))


def test_xor_has_no_pairwise_dependence_but_a_total_correlation_of_one_bit():
    assert total_correlation_nats(XOR) == pytest.approx(math.log(2))
    assert joint_entropy_nats(XOR) == pytest.approx(2 * math.log(2))
    bounds = bounds_of(XOR)
    assert bounds.sum_entropy_nats == pytest.approx(3 * math.log(2))
    assert (bounds.lower_bits, bounds.upper_bits) == pytest.approx((2, 3))
    assert bounds.total_correlation_lower_nats == pytest.approx(0, abs=1e-12)
    assert bounds.total_correlation_upper_nats == pytest.approx(math.log(2))


def test_identical_codes_are_one_code():
    codes = np.repeat(np.arange(4).repeat(20)[:, None], 3, axis=1)
    assert joint_entropy_nats(codes) == pytest.approx(math.log(4))
    assert total_correlation_nats(codes) == pytest.approx(2 * math.log(4))
    bounds = bounds_of(codes)
    assert (bounds.lower_nats, bounds.upper_nats) == pytest.approx((math.log(4), math.log(4)))


def test_independent_codes_have_no_total_correlation():
    codes = np.stack(np.meshgrid(range(2), range(3), range(4), range(5)), -1).reshape(-1, 4)
    assert total_correlation_nats(np.tile(codes, (5, 1))) == pytest.approx(0, abs=1e-12)


def test_on_a_markov_chain_the_tree_is_the_chain_and_its_bound_is_tight():
    # All sequences of a two-state chain that stays with probability 3/4, as often as the chain has them.
    sequences = np.stack(np.meshgrid(*[range(2)] * 4), -1).reshape(-1, 4)
    times = 3 ** (3 - np.abs(np.diff(sequences, axis=1)).sum(1))
    codes = np.repeat(sequences, times, axis=0)
    bounds = bounds_of(codes)
    assert {frozenset(edge) for edge in bounds.tree} == {frozenset({(0, i), (0, i + 1)}) for i in range(3)}
    assert bounds.upper_nats == pytest.approx(joint_entropy_nats(codes), abs=1e-12)
    assert bounds.total_correlation_lower_nats == pytest.approx(total_correlation_nats(codes), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_joint_entropy_lies_within_its_bounds(seed):
    rng = np.random.default_rng(seed)
    mixing = rng.integers(0, 2, (3, 5))
    codes = (rng.integers(0, 2, (4000, 3)) @ mixing + (rng.random((4000, 5)) < 0.1)) % 3
    bounds = bounds_of(codes)
    joint, largest = joint_entropy_nats(codes), max(joint_entropy_nats(codes[:, [m]]) for m in range(5))
    assert largest <= bounds.lower_nats <= joint + 1e-12
    assert joint <= bounds.upper_nats + 1e-12
    assert bounds.upper_nats <= bounds.sum_entropy_nats


def test_a_single_codebook_bounds_itself():
    bounds = bounds_of(np.arange(4).repeat(10)[:, None])
    assert (bounds.lower_nats, bounds.upper_nats, bounds.tree) == (pytest.approx(math.log(4)),) * 2 + ((),)


def test_distinct_rows_agree_with_numpy_also_where_the_joint_table_has_more_cells_than_an_int64():
    codes = np.random.default_rng(0).integers(0, 3, (5000, 6)) * 300_000  # six codebooks of 2^19: 2^114 cells
    _, times = np.unique(codes, axis=0, return_counts=True)
    shares = times / times.sum()
    assert joint_entropy_nats(codes) == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-12)


def test_positions_are_samples():
    codes = torch.from_numpy(XOR).view(10, 10, 3).movedim(2, 1)  # (B, M, T)
    assert joint_entropy_nats(codes) == pytest.approx(joint_entropy_nats(XOR))


def test_one_of_several_levels_is_chosen():
    maps = torch.from_numpy(XOR).view(10, 10, 1, 3).movedim(3, 1)  # (B, M, H, W)
    assert total_correlation_nats(Codes([maps], [[2] * 3])) == pytest.approx(math.log(2))
    both = Codes([torch.zeros_like(maps), maps], [[2] * 3] * 2)
    for codes in (both, CodeCounts(both.codebook_sizes).update(both)):
        assert [total_correlation_nats(codes, level=level) for level in (0, 1)] == pytest.approx([0, math.log(2)])
        for analyse in (joint_entropy_nats, total_correlation_nats):
            for wrong in (None, 2, -1):
                with pytest.raises(
                    ValueError, match=rf"level must say which of 2 levels to take, from 0; got {wrong}; for all levels"
                ):
                    analyse(codes, level=wrong)


@pytest.mark.parametrize("sizes", [[5], [5, 6], [5, 6, 7], [5, 6, 7, 8]])
@pytest.mark.parametrize("estimator", ["plugin", "miller_madow"])
def test_counts_know_what_the_codes_themselves_show(sizes, estimator):
    codes = np.random.default_rng(0).integers(0, sizes, (20_000, len(sizes))) // 2
    counts = CodeCounts(sizes)
    for batch in np.array_split(codes, 3):
        counts.merge(CodeCounts(sizes).update(batch))
    for analyse in (joint_entropy_nats, total_correlation_nats):
        assert analyse(counts, estimator) == pytest.approx(analyse(codes, estimator), abs=1e-12)


def test_counts_without_a_table_of_all_codebooks_are_refused():
    counts = CodeCounts([128, 128, 257]).update(np.zeros((20, 3), dtype=np.int64))
    for analyse in (joint_entropy_nats, total_correlation_nats):
        with pytest.raises(
            ValueError, match=r"fits into 4,194,304 cells .* got counts of sizes \(128, 128, 257\); pass"
        ):
            analyse(counts)


def test_too_few_samples_warn_with_the_bias_and_the_corrected_figure():
    message = (
        r"^joint_entropy_nats has only 4 samples for 4 distinct rows.* 0.375 nats; it is 1.761 nats after Miller-M"
    )
    with pytest.warns(UserWarning, match=message) as caught:  # log 4 + 3 / 8
        assert joint_entropy_nats(XOR[:4]) == pytest.approx(math.log(4))
    assert caught[0].filename == __file__


def test_total_correlation_warns_for_itself():
    counts = CodeCounts([2] * 3).update(XOR[:4])
    message = (
        r"^total_correlation_nats has only 4 samples for 4 distinct rows: .* 0.6931 nats, .*; it is 0.6931 nats after"
    )
    with pytest.warns(UserWarning, match=message) as caught:  # log 2 + (3 x 1 - 3) / 8
        assert total_correlation_nats(counts) == pytest.approx(math.log(2))
    assert [warning.filename for warning in caught] == [__file__]


def test_bad_codes_are_refused():
    with pytest.raises(ValueError, match="codes must be integers"):
        joint_entropy_nats(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="not empty"):
        joint_entropy_nats(np.zeros((0, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="estimator must be one of plugin, miller_madow; got 'shuffle'"):
        total_correlation_nats(XOR, "shuffle")  # pyright: ignore[reportArgumentType]


def test_negative_codes_are_refused():
    with pytest.raises(ValueError, match="codes must be at least 0; got -5; leave masked positions out"):
        joint_entropy_nats(np.array([[0, 3], [1, -1], [2, -5]]))
    with pytest.raises(ValueError, match=r"codes must be below 2\^63; got 9223372036854775808"):
        joint_entropy_nats(np.array([[2**63]], dtype=np.uint64))
