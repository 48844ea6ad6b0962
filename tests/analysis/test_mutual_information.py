import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from depthq.analysis import (
    CodeCounts,
    entropy_nats,
    mutual_information,
    mutual_information_nats,
    pairwise_mutual_information,
    shuffled_mutual_information_nats,
)


def dependent_codes(samples: int, codebooks: int = 3, size: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    shared = rng.integers(0, size, (samples, 1))
    return np.where(rng.random((samples, codebooks)) < 0.6, shared, rng.integers(0, size, (samples, codebooks)))


def test_independent_codes_share_nothing():
    joint = torch.outer(torch.tensor([1, 2, 3]), torch.tensor([4, 5]))
    assert mutual_information_nats(joint) == pytest.approx(0.0, abs=1e-14)
    assert mutual_information_nats(joint) >= 0.0


def test_identical_codes_share_their_entropy():
    shares = torch.tensor([1, 2, 3])
    assert mutual_information_nats(torch.diag(shares)) == pytest.approx(float(entropy_nats(shares)), abs=1e-14)


def test_half_shared_bit_by_hand():
    joint = torch.tensor([[3, 1], [1, 3]])  # of 8: agree with probability 3/4
    expected = math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert mutual_information_nats(joint) == pytest.approx(expected)


def test_relabelling_and_exchange_change_nothing():
    joint = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (5, 7)))
    relabelled = joint[torch.randperm(5)][:, torch.randperm(7)]
    assert mutual_information_nats(relabelled) == pytest.approx(mutual_information_nats(joint), abs=1e-13)
    assert mutual_information_nats(joint.T) == pytest.approx(mutual_information_nats(joint), abs=1e-13)


@pytest.mark.parametrize("samples", [300, 100_000])
def test_agrees_with_scikit_learn(samples):
    codes = dependent_codes(samples)
    information = pairwise_mutual_information(CodeCounts([6] * 3).update(codes))
    for a in range(3):
        for b in range(3):
            assert information.matrix_nats[a, b] == pytest.approx(
                mutual_info_score(codes[:, a], codes[:, b]), abs=1e-10
            )


@pytest.mark.parametrize("by", ["min", "geometric", "arithmetic", "max"])
def test_normalized_variants_agree_with_scikit_learn(by):
    codes = dependent_codes(500)
    codes[:, 2] //= 3  # another entropy, so that the means differ
    normalized = pairwise_mutual_information(CodeCounts([6] * 3).update(codes)).normalized(by)
    expected = normalized_mutual_info_score(codes[:, 0], codes[:, 2], average_method=by)
    assert float(normalized[0, 2]) == pytest.approx(expected, abs=1e-10)
    assert normalized.diagonal().tolist() == pytest.approx([1, 1, 1])


def test_normalized_by_joint_entropy_by_hand():
    codes = np.array([[0, 0], [0, 1], [1, 2], [1, 3]] * 25)  # 1 bit is shared, the pair has 2
    information = pairwise_mutual_information(CodeCounts([2, 4]).update(codes))
    assert float(information.normalized("joint")[0, 1]) == pytest.approx(0.5)


def test_a_constant_codebook_is_normalized_to_zero():
    codes = np.array([[0, 0], [0, 1]] * 10)
    information = pairwise_mutual_information(CodeCounts([2, 2]).update(codes))
    assert information.normalized().tolist() == [[0, 0], [0, 1]]


def test_matrix_holds_entropy_on_its_diagonal_and_names_its_codebooks():
    codes = np.array([[0, 0, 0], [1, 1, 0]] * 10)
    information = pairwise_mutual_information(CodeCounts([2, 2, 2]).update(codes))
    assert information.codebooks == ((0, 0), (0, 1), (0, 2))
    assert information.matrix_bits.numpy() == pytest.approx(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]]))
    assert information.mean_pairwise_bits == pytest.approx(1 / 3)
    assert information.mean_pairwise_nats == pytest.approx(math.log(2) / 3)


def test_across_levels_and_within_chosen_ones():
    coarse = torch.randint(0, 2, (500, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)  # the fine level repeats the coarse one
    counts = CodeCounts([[2], [2]]).update([coarse, fine])
    across = pairwise_mutual_information(counts)
    assert across.codebooks == ((0, 0), (1, 0))
    assert float(across.matrix_nats[0, 1]) == pytest.approx(float(across.matrix_nats[0, 0]))
    assert pairwise_mutual_information(counts, levels=[1]).codebooks == ((1, 0),)


def test_shuffle_baseline_is_the_expected_mutual_information_of_scikit_learn():
    codes = dependent_codes(400, codebooks=2, size=12)
    expected = expected_mutual_information(contingency_matrix(codes[:, 0], codes[:, 1], sparse=True), 400)
    joint = CodeCounts([12, 12]).update(codes).joint((0, 0), (0, 1))
    assert shuffled_mutual_information_nats(joint, num_shuffles=200) == pytest.approx(expected, rel=0.02)


def test_corrections_take_the_bias_away():
    codes = np.random.default_rng(0).integers(0, 20, (2000, 6))  # independent: the truth is 0
    counts = CodeCounts([20] * 6).update(codes)
    plugin, miller_madow, shuffle = (
        pairwise_mutual_information(counts, estimator=name).mean_pairwise_nats
        for name in ("plugin", "miller_madow", "shuffle")
    )
    assert plugin == pytest.approx(19 * 19 / (2 * 2000), rel=0.1)  # 0.09 nats
    assert abs(miller_madow) < plugin / 10
    assert abs(shuffle) < plugin / 10


def test_shuffle_is_right_where_miller_madow_no_longer_is():
    codes = np.random.default_rng(0).integers(0, 64, (1000, 2))  # a quarter sample per cell, truth 0
    joint = CodeCounts([64, 64]).update(codes).joint((0, 0), (0, 1))
    assert mutual_information_nats(joint, "miller_madow") > 0.5
    assert abs(mutual_information_nats(joint, "shuffle")) < 0.05


def test_too_few_samples_warn_with_the_bias_and_the_corrected_figure():
    codes = np.random.default_rng(0).integers(0, 20, (500, 2))
    counts = CodeCounts([20, 20]).update(codes)
    message = (
        r"only 500 positions for a table of 20 x 20 .* at random, they show 0.4\d+ nats. This pair shares 0.4\d+ nats "
        r'by "plugin", 0.2\d+ by "miller_madow" and -?0.0\d+ by "shuffle"'
    )
    with pytest.warns(UserWarning, match=message):
        pairwise_mutual_information(counts)
    with pytest.warns(UserWarning, match=message):
        pairwise_mutual_information(counts, estimator="miller_madow")
    pairwise_mutual_information(counts, estimator="shuffle")  # warnings are errors: it must not warn


@pytest.mark.parametrize(("samples", "size"), [(300, 512), (1500, 20)])
def test_the_bias_that_a_warning_states_is_possible(samples, size):
    """(K - 1)^2 / (2 N) of the codes in use, 80 nats for 300 positions, is more than any codebook can say."""
    codes = np.random.default_rng(0).integers(0, size, (samples, 2))
    with pytest.warns(UserWarning, match="paired at random") as caught:
        pairwise_mutual_information(CodeCounts([size, size]).update(codes), estimator="plugin")
    stated = float(str(caught[0].message).split("they show ")[1].split()[0])
    joint = CodeCounts([size, size]).update(codes).joint((0, 0), (0, 1))
    assert stated == pytest.approx(shuffled_mutual_information_nats(joint), rel=0.01)
    assert stated < math.log(size)


@pytest.mark.parametrize("estimator", ["plugin", "miller_madow", "shuffle"])
def test_positions_of_a_single_code_warn_that_they_show_nothing(estimator):
    def measure(sizes, codes):
        return pairwise_mutual_information(CodeCounts(sizes).update(codes), estimator=estimator)

    with pytest.warns(
        UserWarning, match="only 1 positions, all with one code of a codebook: they cannot show any mutual"
    ):
        measure([4, 4], np.array([[3, 1]]))
    coarse, fine = np.zeros((1, 1, 1, 1), dtype=int), np.arange(4).reshape(1, 1, 2, 2)
    with pytest.warns(UserWarning, match="only 4 positions, all with one code"):
        measure([[2], [4]], [coarse, fine])
    measure([4, 4], np.array([[3, 1]] * 5))  # warnings are errors: it must not warn


def test_one_code_told_twice_is_left_whole_by_miller_madow_and_halved_by_shuffle():
    code = np.random.default_rng(0).integers(0, 128, (1000, 1))  # truth log 128 = 4.852 nats
    counts = CodeCounts([128, 128]).update(np.repeat(code, 2, axis=1))
    joint = counts.joint((0, 0), (0, 1))
    plugin, miller_madow = (mutual_information_nats(joint, name) for name in ("plugin", "miller_madow"))
    assert plugin == pytest.approx(math.log(128) - 127 / 2000, abs=0.02)  # too low, not too high
    assert miller_madow == pytest.approx(math.log(128), abs=0.02)
    with pytest.warns(UserWarning, match=r'4.8\d+ by "miller_madow" and 2.\d+ by "shuffle", which is right for indep'):
        assert float(pairwise_mutual_information(counts, estimator="shuffle").matrix_nats[0, 1]) < 2.5


def test_samples_too_large_to_shuffle_have_the_bias_of_the_limit():
    independent = torch.full((4, 4), 10**8)
    assert shuffled_mutual_information_nats(independent) == pytest.approx(9 / 3.2e9)
    assert mutual_information_nats(independent, "shuffle") == pytest.approx(0, abs=1e-8)


def test_joint_counts_may_be_of_numpy():
    joint = np.array([[5, 0], [0, 5]])
    assert mutual_information_nats(joint) == mutual_information_nats(torch.from_numpy(joint))
    assert shuffled_mutual_information_nats(joint) == shuffled_mutual_information_nats(torch.from_numpy(joint))


def test_what_are_no_joint_counts_is_refused():
    with pytest.raises(ValueError, match=r"joint must be integers; got float64; pass how often each code occurs"):
        mutual_information_nats(np.array([[0.5, 0.0], [0.0, 0.5]]))
    with pytest.raises(ValueError, match="joint must be at least 0; got -1"):
        mutual_information_nats(np.array([[5, -1], [0, 5]]), "shuffle")
    with pytest.raises(
        ValueError, match=r"joint must be below 2\^63; got 18446744073709551615; were they negative once"
    ):
        mutual_information_nats(np.array([[5, 2**64 - 1], [0, 5]], dtype=np.uint64))
    with pytest.raises(ValueError, match=r"joint must be \(K_a, K_b\); got shape \(4,\)"):
        shuffled_mutual_information_nats(torch.ones(4, dtype=torch.int64))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="estimator must be one of plugin, miller_madow, shuffle; got 'ksg'"):
        mutual_information_nats(torch.ones(2, 2, dtype=torch.int64), "ksg")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"joint must be \(K_a, K_b\); got shape \(4,\)"):
        mutual_information_nats(torch.ones(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="joint must hold at least one count; got none"):
        mutual_information_nats(torch.zeros(2, 2, dtype=torch.int64))
    counts = CodeCounts([2]).update(np.array([[0], [1]] * 10))
    with pytest.raises(ValueError, match="levels must hold at least one level; got none"):
        pairwise_mutual_information(counts, levels=[])
    information = pairwise_mutual_information(counts)
    with pytest.raises(ValueError, match="at least two to form a pair; got 1"):
        _ = information.mean_pairwise_nats
    with pytest.raises(ValueError, match="by must be one of min, geometric, arithmetic, max, joint; got 'sum'"):
        information.normalized("sum")  # pyright: ignore[reportArgumentType]


def test_permuted_codes_show_what_drawn_tables_show(monkeypatch):
    joint = CodeCounts([40, 30]).update(np.random.default_rng(0).integers(0, 30, (2000, 2))).joint((0, 0), (0, 1))
    drawn = shuffled_mutual_information_nats(joint, num_shuffles=100)
    monkeypatch.setattr(mutual_information, "MOST_CELLS_DRAWN", 0)
    assert shuffled_mutual_information_nats(joint, num_shuffles=100) == drawn  # more counts than cells: still drawn
    few = joint.clamp(max=1)
    permuted = shuffled_mutual_information_nats(few, num_shuffles=200)
    monkeypatch.setattr(mutual_information, "MOST_CELLS_DRAWN", 10**6)
    assert permuted == pytest.approx(shuffled_mutual_information_nats(few, num_shuffles=200), rel=0.01)
