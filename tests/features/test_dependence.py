import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from depthq.features import axis_correlation, dependence, feature_dependence, quantile_codes

IMAGES = 600


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(seed))


def test_quantile_codes_by_hand():
    features = torch.tensor([[3.0, -1.0], [1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    assert quantile_codes(features, 2).tolist() == [[1, 0], [0, 1], [0, 1], [1, 1]]


def test_quantile_bins_hold_equal_shares_of_continuous_features():
    codes = quantile_codes(normal(3, 2), 5)
    for code in range(5):
        assert (codes == code).sum(0).tolist() == [[IMAGES // 5] * 2] * 3


def test_quantile_codes_do_not_change_under_an_increasing_map():
    features = normal(10)
    assert torch.equal(quantile_codes(features), quantile_codes(features.exp() * 5 - 1))


def test_values_after_a_relu_differ_from_zero_in_their_code():
    features = torch.relu(2 * normal(1) + normal(2, seed=1) - 2)  # 82 % are exactly 0
    codes = quantile_codes(features)
    assert torch.equal(codes == 0, features == 0)
    expected = mutual_info_score(*(features > 0).int().T.numpy())
    assert mutual_info_score(*codes.T.numpy()) == pytest.approx(expected)
    assert expected > 0.05


def test_quantile_codes_take_numpy():
    assert torch.equal(quantile_codes(normal(3).numpy()), quantile_codes(normal(3)))


def test_channel_correlation_agrees_with_numpy_where_there_is_one_position():
    features = normal(6) @ torch.tensor(np.random.default_rng(0).normal(size=(6, 6)), dtype=torch.float32)
    expected = np.corrcoef(features.numpy(), rowvar=False)
    assert np.abs(axis_correlation(features, 1).numpy() - expected).max() < 1e-6


def test_row_correlation_is_the_mean_over_channels_and_columns():
    features = normal(3, 4, 2).cumsum(2)
    expected = np.mean(
        [np.corrcoef(features[:, c, :, w].numpy(), rowvar=False) for c in range(3) for w in range(2)], axis=0
    )
    assert np.abs(axis_correlation(features, 2).numpy() - expected).max() < 1e-6
    assert torch.equal(axis_correlation(features, -2), axis_correlation(features, 2))


def test_a_difference_of_mean_or_scale_is_no_correlation():
    features = normal(2, 5) * torch.tensor([1.0, 100.0])[:, None] + torch.arange(5) * 50
    assert float(axis_correlation(features, 1)[0, 1].abs()) < 0.1


def test_features_that_never_vary_are_left_out():
    features = normal(2, 2).cumsum(1)
    padded = torch.cat([features, torch.full((IMAGES, 2, 1), 0.1)], dim=2)  # one more position, always 0.1
    assert torch.allclose(axis_correlation(padded, 1), axis_correlation(features, 1))
    assert axis_correlation(padded, 2)[2].tolist() == [0, 0, 0]


def test_dependence_across_positions_of_a_channel():
    features = normal(6, 1, 1) + normal(6, 4, 4, seed=1)  # correlation 1/2 within a channel, none across
    measured = feature_dependence(features)
    assert measured.within_channel.squared_correlation == pytest.approx(0.25, abs=0.03)
    assert measured.within_channel.mutual_information_nats > 0.08
    for other in (measured.within_position, measured.across_both):
        assert abs(other.squared_correlation) < 0.005
        assert abs(other.mutual_information_nats) < 0.005


def test_dependence_across_channels_at_a_position():
    measured = feature_dependence(normal(1, 4, 4) + normal(6, 4, 4, seed=1))
    assert measured.within_position.squared_correlation == pytest.approx(0.25, abs=0.03)
    assert abs(measured.within_channel.squared_correlation) < 0.005
    assert abs(measured.across_both.squared_correlation) < 0.005


def test_features_that_never_vary_do_not_thin_dependence_out():
    features = normal(6, 1) + normal(6, 4, seed=1)
    padded = torch.cat([features, torch.zeros(IMAGES, 6, 3)], dim=2)  # three more positions, always 0
    measured, expected = feature_dependence(padded), feature_dependence(features)
    for pairs in ("within_channel", "within_position", "across_both"):
        assert vars(getattr(measured, pairs)) == pytest.approx(vars(getattr(expected, pairs)), abs=1e-12)
    with pytest.raises(ValueError, match="features must hold at least 2 that vary over the samples; got 0"):
        feature_dependence(torch.zeros(IMAGES, 6, 3))


def test_each_group_that_is_left_out_for_an_error_estimate_has_samples():
    columns = normal(3)[:25]  # 10 groups of 2 or 3
    whole, *without_a_group = dependence.MeasuredPairs(columns, quantile_codes).information_nats
    assert len(without_a_group) == 10
    assert not any(torch.equal(part, whole) for part in without_a_group)


def test_mutual_information_sees_dependence_that_correlation_does_not():
    scale = 3 * torch.rand(IMAGES, 1, 4, generator=torch.Generator().manual_seed(1))
    measured = feature_dependence(scale * normal(6, 4))  # channels share a scale, and no sign
    assert abs(measured.within_position.squared_correlation) < 0.02
    assert measured.within_position.mutual_information_nats > 0.03


def test_too_few_samples_warn_with_what_independent_features_would_show():
    with pytest.warns(UserWarning, match=r"only 600 samples for 16 codes per feature, which ask for 1280") as caught:
        measured = feature_dependence(normal(6, 4), encode=lambda x: quantile_codes(x, 16))
    stated = float(str(caught[0].message).split("they show ")[1].split()[0])
    assert stated == pytest.approx(measured.across_both.mutual_information_nats, abs=0.005)
    assert stated > 0.01  # though the features are independent, and the estimate is corrected


@pytest.mark.parametrize("cells_at_once", [1, 2**20])
def test_mutual_information_of_all_pairs_agrees_with_scikit_learn(monkeypatch, cells_at_once):
    monkeypatch.setattr(dependence, "TABLE_CELLS_AT_ONCE", cells_at_once)
    features = normal(5).cumsum(1)[:599]  # not a multiple of the groups
    pairs = dependence.MeasuredPairs(features, lambda x: quantile_codes(x, 3))
    codes = quantile_codes(features, 3).numpy()
    occupied = 9 - 3 - 3 + 1  # every cell of these tables is
    for a in range(5):
        for b in range(a):
            expected = mutual_info_score(codes[:, a], codes[:, b]) - occupied / (2 * 599)
            assert float(pairs.information_nats[0, a, b]) == pytest.approx(expected, abs=1e-10)
    without_first_group = mutual_info_score(codes[60:, 0], codes[60:, 1]) - occupied / (2 * 539)
    assert float(pairs.information_nats[1, 0, 1]) == pytest.approx(without_first_group, abs=1e-10)


def test_any_quantizer_will_do():
    signs = feature_dependence(normal(4, 1) + normal(4, 4, seed=1), encode=lambda x: (x > 0).int())
    assert signs.within_channel.mutual_information_nats > 0.03
    with pytest.raises(ValueError, match=r"encode must return codes of at least 0, of shape \(600, 16\)"):
        feature_dependence(normal(4, 4), encode=lambda x: x.sign().long())
    with pytest.raises(ValueError, match=r"got shape \(600, 1\)"):
        feature_dependence(normal(4, 4), encode=lambda x: (x[:, :1] > 0).long())
    with pytest.raises(ValueError, match=r"codes must be integers; got torch\.float32"):
        feature_dependence(normal(4, 4), encode=lambda x: x)


@pytest.mark.parametrize("analyse", [feature_dependence, lambda features: axis_correlation(features, 1)])
def test_bad_features_are_refused(analyse):
    broken = normal(4, 4)
    broken[0, 0, 0], broken[5, 1, 1] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="features must be finite; got NaN or infinity in 2 of 9600 entries"):
        analyse(broken)
    with pytest.raises(ValueError, match=r"features must be floats \(B, C, ...\) and not empty; got torch.int64"):
        analyse(torch.zeros(30, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"and not empty; got torch.float32 of shape \(30, 0, 4\)"):
        analyse(torch.zeros(30, 0, 4))
    with pytest.raises(ValueError, match=r"at least 20 samples on axis 0; got shape \(19, 4, 4\)"):
        analyse(np.zeros((19, 4, 4)))


@pytest.mark.parametrize("axis", [0, 3, -3])
def test_an_axis_out_of_range_is_refused(axis):
    with pytest.raises(ValueError, match=rf"axis must lie in \[1, 3\), axis 0 being the samples; got {axis}"):
        axis_correlation(normal(4, 4), axis)


def test_features_without_positions_have_nothing_to_compare():
    with pytest.raises(ValueError, match=r"must have channels and positions to compare; got shape \(600, 4\)"):
        feature_dependence(normal(4))


def test_no_pairs_to_choose_are_refused():
    with pytest.raises(ValueError, match="max_positions must be at least 2, to form pairs; got 1"):
        feature_dependence(normal(4, 4), max_positions=1)


def test_quantile_codes_refuse_what_has_no_order():
    with pytest.raises(ValueError, match="num_bins must be at least 2; got 1"):
        quantile_codes(normal(2), 1)
    with pytest.raises(ValueError, match=r"features must hold at least one sample; got shape \(0, 3\)"):
        quantile_codes(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="features must be finite; got NaN or infinity in 1 of 2 entries"):
        quantile_codes(torch.tensor([[1.0], [float("nan")]]))
