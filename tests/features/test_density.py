"""A quantizer as density estimator of features: what shares a codebook, and what is measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from depthq.features.density import decompose, estimate_density, feature_moments


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def estimate(train: np.ndarray, held_out: np.ndarray | None = None, **settings):
    defaults = {"axis": "channel", "codebook_size": 2, "num_codebooks": 2, "steps": 5, "seeds": 1}
    return estimate_density(train, train if held_out is None else held_out, **(defaults | settings))


def test_decomposition_by_hand():
    maps = torch.tensor([[[0.0], [1]], [[10], [11]], [[20], [21]], [[30], [31]]])[None]  # value 10 c + r: (1, 4, 2, 1)
    by_channel = decompose(maps, 2, "channel")[0, :, :, 0]  # one column per row of the map
    assert by_channel.T.tolist() == [[0, 10, 20, 30], [1, 11, 21, 31]]
    by_row = decompose(maps, 2, "row")[0, :, :, 0]  # one column per segment; its upper half is row 0
    assert by_row.T.tolist() == [[0, 10, 1, 11], [20, 30, 21, 31]]


@pytest.mark.parametrize("axis", ["channel", "row"])
def test_512_channels_become_7_segments_of_74(axis):
    vectors = decompose(torch.ones(1, 512, 7, 7), 7, axis)
    assert vectors.shape == (1, 7 * 74, 7, 7)
    assert vectors.sum() == 512 * 7 * 7  # the rest is zeros


def test_both_decompositions_see_the_same_vectors():
    maps = torch.from_numpy(noise(3, 10, 4, 5))
    sets = []
    for axis in ("channel", "row"):
        vectors = decompose(maps, 4, axis).unflatten(1, (4, 3)).movedim(2, -1).flatten(0, -2)
        sets.append(sorted(vectors.tolist()))
    assert len(sets[0]) == 3 * 4 * 4 * 5
    assert sets[0] == sets[1]


def test_the_axis_along_which_vectors_differ_is_described_without_error():
    """Each segment has two vectors of its own, at any row: 2 codes per segment suffice, 2 per row do not."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((3, 2, 4)).astype(np.float32)  # (segment, choice, D)
    choice = generator.integers(0, 2, (40, 3, 3, 5))  # (map, segment, row, column)
    maps = vectors[np.arange(3)[:, None, None], choice].transpose(0, 1, 4, 2, 3).reshape(40, 12, 3, 5)
    by_channel, by_row = (estimate(maps, axis=axis, num_codebooks=3).held_out for axis in ("channel", "row"))
    assert by_channel.mse.mean == pytest.approx(0, abs=1e-10)
    assert by_channel.entropy_nats.mean == pytest.approx(np.log(2), abs=0.01)
    assert by_row.mse_standardized.mean > 0.2


def test_rows_and_segments_exchanged_exchange_the_decompositions():
    maps = noise(20, 3, 2, 3, 5)  # (map, segment, D, row, column)
    exchanged = maps.transpose(0, 3, 2, 1, 4)
    settings = {"num_codebooks": 3, "codebook_size": 4}
    by_channel = estimate(maps.reshape(20, 6, 3, 5), axis="channel", **settings)
    by_row = estimate(exchanged.reshape(20, 6, 3, 5), axis="row", **settings)
    assert replace(by_row, axis="channel") == by_channel


def test_one_code_answers_with_the_mean():
    train = np.array([1.0, 3.0, 5.0, 7.0], dtype=np.float32).reshape(4, 1, 1, 1)  # mean 4, variance 5
    held_out = np.array([4.0, 8.0], dtype=np.float32).reshape(2, 1, 1, 1)
    density = estimate(train, held_out, codebook_size=1, num_codebooks=1, steps=1, batch_size=4)
    assert density.training.mse.mean == pytest.approx(5)
    assert density.training.mse_standardized.mean == pytest.approx(1)
    assert density.held_out.mse.mean == pytest.approx((0 + 16) / 2)
    assert density.held_out.mse_standardized.mean == pytest.approx(8 / 5)  # of the training features' variance
    assert density.training.entropy_nats.mean == 0
    assert density.training.usage.mean == 1


def test_error_is_over_values_not_over_padding():
    """3 channels as 2 segments: the second is (value, padding), and one codebook per row answers both."""
    maps = np.array([[1.0, 1], [5, 5], [3, 3]], dtype=np.float32).reshape(1, 3, 2, 1)
    density = estimate(maps, axis="row", codebook_size=1, steps=1, batch_size=1)
    # The codeword is the mean of (1, 5) and (3, 0): errors 1, 2.5 and 1 at the values, 2.5 at the padding.
    assert density.training.mse.mean == pytest.approx((1 + 2.5**2 + 1) / 3)


def test_figures_of_scaled_and_shifted_features_compare():
    maps = noise(30, 4, 2, 3)
    plain, scaled = (estimate(features, steps=20).held_out for features in (maps, 3 * maps + 2))
    assert scaled.mse.mean == pytest.approx(9 * plain.mse.mean, rel=1e-3)
    assert scaled.mse_standardized.mean == pytest.approx(plain.mse_standardized.mean, rel=1e-3)
    assert scaled.entropy_nats.mean == pytest.approx(plain.entropy_nats.mean, abs=1e-3)


def test_more_codes_err_less_and_say_more():
    """Opposite to the paper's Table 2, where the error grows with K."""
    few, many = (estimate(noise(200, 4, 2, 4), noise(50, 4, 2, 4, seed=1), codebook_size=k, steps=50) for k in (4, 64))
    for split in ("held_out", "training"):
        assert getattr(many, split).mse.mean < 0.5 * getattr(few, split).mse.mean
        assert getattr(many, split).entropy_nats.mean > 1.5 * getattr(few, split).entropy_nats.mean


def test_codes_that_remember_single_vectors_show_in_the_held_out_error():
    train, held_out = noise(16, 16, 1, 2), noise(16, 16, 1, 2, seed=1)
    density = estimate(train, held_out, codebook_size=32, steps=20, batch_size=16)  # 32 vectors per codebook
    assert density.training.mse.mean < 0.01
    assert density.training.entropy_nats.mean == pytest.approx(np.log(32), abs=0.1)
    assert density.held_out.mse.mean > 0.5


def test_error_is_near_that_of_scikit_learn():
    maps = noise(100, 2, 2, 5)
    vectors = maps.transpose(0, 2, 3, 1).reshape(-1, 2)
    theirs = KMeans(16, n_init=5, random_state=0).fit(vectors).inertia_ / vectors.size
    ours = estimate(maps, num_codebooks=1, codebook_size=16, steps=100, seeds=5).training.mse.mean
    assert ours == pytest.approx(theirs, rel=0.1)  # theirs is the best of 5, ours the mean of 5


def test_few_vectors_are_told_with_the_corrected_entropy():
    train, held_out = noise(16, 16, 1, 2), noise(100, 16, 1, 2, seed=1)
    density = estimate(train, held_out, codebook_size=16, steps=20, batch_size=16)
    (warning,) = density.warnings  # 32 vectors for 16 codes; 200 are enough
    assert warning.startswith(
        "training features, by channel, give each codebook only 32 vectors for 16 codes in use of 16"
    )
    added = density.training.entropy_miller_madow_nats.mean - density.training.entropy_nats.mean
    assert added == pytest.approx((16 - 1) / (2 * 32))
    assert f"at least about {added:.3g} nats; it is {density.training.entropy_miller_madow_nats.mean:.4g}" in warning


def test_a_known_variance_is_taken_for_that_of_the_features():
    maps = noise(30, 4, 2, 3)
    _, variance = feature_moments(maps)
    assert estimate(maps, variance=variance) == estimate(maps)
    doubled = estimate(maps, variance=2 * variance).held_out.mse_standardized.mean
    assert doubled == pytest.approx(estimate(maps).held_out.mse_standardized.mean / 2)


def test_seeds_vary_and_repeat():
    maps = noise(30, 4, 2, 3)
    several = estimate(maps, seeds=3, codebook_size=8, batch_size=8)
    assert several.held_out.mse.deviation > 0
    assert several == estimate(maps, seeds=3, codebook_size=8, batch_size=8)
    assert estimate(maps).held_out.mse.deviation is None


def test_moments_by_hand_even_of_small_changes_of_large_values():
    features = (1e6 + np.array([1.0, 2, 3, 6])).astype(np.float64).reshape(4, 1, 1, 1)
    assert feature_moments(features) == (pytest.approx(1e6 + 3, abs=1e-6), pytest.approx(3.5, rel=1e-9))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
@pytest.mark.parametrize("which", ["training", "held-out"])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (35, 0, 0, 1)])
def test_features_must_be_finite(bad, which, place):
    good, spoilt = noise(40, 4, 2, 2), noise(40, 4, 2, 2).astype(np.float64)
    spoilt[place] = bad  # quantizers see float32
    pair = (spoilt, good) if which == "training" else (good, spoilt)
    with pytest.raises(ValueError, match=f"{which} features must be finite; got NaN or infinity in 1 of"):
        estimate(*pair)


def test_features_must_vary():
    with pytest.raises(ValueError, match=r"training features must vary; got 0\.1 everywhere"):
        estimate(np.full((9, 4, 2, 2), 0.1, dtype=np.float32))


@pytest.mark.parametrize(
    "features",
    [noise(5, 4, 3), noise(0, 4, 2, 2), np.ones((5, 4, 2, 2), dtype=np.uint8)],
    ids=["rank", "none", "dtype"],
)
def test_features_must_be_float_maps(features):
    with pytest.raises(ValueError, match=r"training features must be floats \(B, C, H, W\), none of them empty; got"):
        estimate(features)


@pytest.mark.parametrize("name", ["training", "held-out"])
def test_features_must_be_arrays(name):
    array, tensor = noise(5, 4, 2, 2), torch.from_numpy(noise(5, 4, 2, 2))
    with pytest.raises(ValueError, match=rf"{name} features must be a NumPy array; got Tensor; .* pass \.numpy\(\)"):
        estimate(*((tensor, array) if name == "training" else (array, tensor)))


def test_axis_must_be_known():
    with pytest.raises(ValueError, match="axis must be one of channel, row; got 'column'"):
        estimate(noise(5, 4, 2, 2), axis="column")


def test_held_out_features_must_be_of_the_same_kind():
    with pytest.raises(ValueError, match=r"must have the training features' C, H and W; got \(5, 6, 2, 2\)"):
        estimate(noise(5, 4, 2, 2), noise(5, 6, 2, 2))


@pytest.mark.parametrize("num_codebooks", [0, 5, 7])
def test_codebooks_must_fit_the_channels(num_codebooks):
    with pytest.raises(ValueError, match=f"none of which is padding alone; got {num_codebooks} for 8 channels"):
        estimate(noise(5, 8, 2, 2), num_codebooks=num_codebooks)


def test_codebooks_must_be_as_many_as_rows():
    with pytest.raises(ValueError, match=r"must be the number of rows .* got 4 for 2 rows; pass 2"):
        estimate(noise(5, 8, 2, 2), num_codebooks=4, axis="row")


@pytest.mark.parametrize("name", ["steps", "batch_size", "seeds"])
def test_counts_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        estimate(noise(5, 4, 2, 2), **{name: 0})
