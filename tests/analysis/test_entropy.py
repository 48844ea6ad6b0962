import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from depthq.analysis import CodeCounts, code_entropy, entropy_nats, position_entropy_nats


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1, 1], math.log(2)),
        ([5, 5, 5, 5], math.log(4)),
        ([7, 0, 0], 0.0),
        ([1, 0, 3], math.log(4) - 0.75 * math.log(3)),
    ],
)
def test_closed_forms(counts, expected):
    assert float(entropy_nats(torch.tensor(counts))) == pytest.approx(expected, abs=1e-14)


def test_a_constant_code_has_exactly_no_entropy():
    assert all(float(entropy_nats(torch.tensor([count, 0]))) == 0.0 for count in range(1, 2000))


def test_agrees_with_scipy():
    counts = np.random.default_rng(0).integers(0, 1000, (4, 3, 50))
    expected = scipy_entropy(counts, axis=-1)
    assert np.abs(entropy_nats(torch.from_numpy(counts)).numpy() - expected).max() < 1e-10


def test_miller_madow_adds_half_a_sample_share_per_code_beyond_the_first():
    counts = torch.tensor([3, 5, 0, 2])
    difference = entropy_nats(counts, "miller_madow") - entropy_nats(counts)
    assert float(difference) == pytest.approx((3 - 1) / (2 * 10))


def test_miller_madow_reduces_bias():
    size, samples = 50, 200
    rng = np.random.default_rng(0)
    counts = torch.from_numpy(rng.multinomial(samples, np.full(size, 1 / size), size=400))
    plugin_bias = float(entropy_nats(counts).mean()) - math.log(size)
    corrected_bias = float(entropy_nats(counts, "miller_madow").mean()) - math.log(size)
    assert plugin_bias == pytest.approx(-(size - 1) / (2 * samples), rel=0.2)  # -0.12 nats
    assert abs(corrected_bias) < abs(plugin_bias) / 5


def test_code_entropy_of_each_codebook():
    counts = CodeCounts([4, 2]).update(np.array([[0, 1], [1, 1]] * 10))
    result = code_entropy(counts)
    assert result.num_samples == 20
    assert result.entropy_nats.tolist() == pytest.approx([math.log(2), 0.0])
    assert result.entropy_bits.tolist() == pytest.approx([1.0, 0.0])
    assert result.perplexity.tolist() == pytest.approx([2.0, 1.0])
    assert result.usage.tolist() == [0.5, 0.5]


def test_each_level_has_its_own_entropy():
    coarse, fine = torch.zeros(10, 1, 1, 1, dtype=torch.int64), torch.arange(2).repeat(10, 1, 1, 1)
    counts = CodeCounts([[2], [2]]).update([coarse, fine])
    assert float(code_entropy(counts, 0).entropy_nats) == 0.0
    assert float(code_entropy(counts, 1).entropy_nats) == pytest.approx(math.log(2))


def test_entropy_per_position_is_over_images():
    codes = torch.zeros(20, 1, 1, 2, dtype=torch.int64)
    codes[::2, 0, 0, 1] = 1  # the left position never changes, the right one takes both codes evenly
    entropy = position_entropy_nats(CodeCounts([2]).update(codes))
    assert entropy.shape == (1, 1, 2)
    assert entropy.flatten().tolist() == pytest.approx([0.0, math.log(2)])


def test_too_few_samples_warn_with_the_bias_and_the_corrected_figure():
    counts = CodeCounts([4]).update(np.array([[0], [1], [2], [3], [0], [1], [2], [3]]))
    with pytest.warns(UserWarning, match=r"only 8 positions for up to 4 codes .* 0.188 nats.* is 1.574 nats after Mil"):
        code_entropy(counts)  # (4 - 1) / 16 = 0.1875, log 4 + 0.1875 = 1.5738
    with pytest.warns(UserWarning, match="position_entropy_nats has only 8 images for up to 4 codes"):
        position_entropy_nats(counts)
    assert float(code_entropy(counts, estimator="miller_madow").entropy_nats) == pytest.approx(1.5738, abs=1e-4)


def test_a_single_sample_is_said_to_show_nothing():
    with pytest.warns(UserWarning, match="has only 1 of the images, which cannot show any entropy; count more"):
        position_entropy_nats(CodeCounts([4]).update(np.zeros((1, 1, 3), dtype=np.int64)))


def test_counts_may_be_of_numpy_and_of_any_integer_dtype():
    assert float(entropy_nats(np.array([5, 5], dtype=np.uint16))) == pytest.approx(math.log(2))
    assert float(entropy_nats(torch.tensor([5, 5], dtype=torch.uint8))) == pytest.approx(math.log(2))


def test_what_are_no_counts_is_refused():
    with pytest.raises(
        ValueError, match=r"counts must be integers; got torch.float32; pass how often each code occurs"
    ):
        entropy_nats(torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="counts must be at least 0; got -2"):
        entropy_nats(torch.tensor([3, -2]))


def test_unknown_estimators_and_empty_rows_are_refused():
    with pytest.raises(ValueError, match="estimator must be one of plugin, miller_madow; got 'mle'"):
        entropy_nats(torch.tensor([1, 2]), "mle")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="counts must hold at least one count in each row"):
        entropy_nats(torch.tensor([[1, 2], [0, 0]]))
