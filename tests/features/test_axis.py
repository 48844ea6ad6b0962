import numpy as np
import pytest
import torch

from depthq.features import recommend_axis

IMAGES = 500


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(seed))


def independent_channel_groups(groups: int, channels: int = 12) -> torch.Tensor:
    return normal(groups, 1, 1).repeat_interleave(channels // groups, 1) + normal(channels, 4, 4, seed=1)


@pytest.mark.parametrize("groups", [2, 3, 4, 6])
def test_independent_groups_of_channels_are_found(groups):
    advice = recommend_axis(independent_channel_groups(groups))
    assert (advice.axis, advice.num_slices, advice.is_weak) == (1, groups, False)
    assert advice.split.ratio == pytest.approx(0, abs=0.05)
    assert advice.split.within.mutual_information_nats > 0.08
    assert advice.split.within.squared_correlation == pytest.approx(0.25, abs=0.05)
    assert abs(advice.split.between.squared_correlation) < 0.01


def test_independent_rows_are_found():
    advice = recommend_axis(normal(1, 4, 1) + normal(6, 4, 4, seed=1))
    assert (advice.axis, advice.num_slices, advice.is_weak) == (2, 4, False)


def test_groups_that_are_dependent_without_correlation_are_found():
    scale = 3 * torch.rand(IMAGES, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    advice = recommend_axis(scale.repeat_interleave(2, 1) * normal(6, 4, 4, seed=1))
    assert (advice.axis, advice.num_slices, advice.is_weak) == (1, 3, False)
    assert abs(advice.split.within.squared_correlation) < 0.02


def test_groups_of_channels_that_are_mostly_zero_are_found():
    advice = recommend_axis(torch.relu(normal(4) - 1.04).repeat_interleave(4, 1))  # 85 % zeros
    assert (advice.axis, advice.num_slices, advice.is_weak) == (1, 4, False)
    assert advice.split.within.mutual_information_nats > 0.35


def test_channels_last_and_vectors_have_their_axis():
    features = independent_channel_groups(3)
    assert recommend_axis(features.movedim(1, -1)).axis == 3
    assert recommend_axis(features[:, :, 0, 0]).num_slices == 3
    assert recommend_axis(features, axes=[-3]).axis == 1


def test_independent_features_give_weak_evidence():
    advice = recommend_axis(normal(8, 4, 4))
    assert advice.is_weak
    assert "share no more than noise may show" in str(advice)


def test_noise_rarely_passes_for_evidence():
    noise = [normal(12, seed=seed)[:100] for seed in range(30)] + [normal(16, 3, 3, seed=seed) for seed in range(30)]
    assert all(recommend_axis(features).is_weak for features in noise)


@pytest.mark.parametrize("seed", range(5))
def test_a_split_whose_slices_share_nothing_is_not_as_good_for_its_large_error(seed):
    """Positions share nothing: of 16 slices, within one of which there is nothing else, the ratio is noise."""
    signal = normal(4, 3, 3, seed=seed).repeat_interleave(4, 1)
    advice = recommend_axis(signal + normal(16, 3, 3, seed=100 + seed), axes=[1])
    assert (advice.num_slices, advice.is_weak) == (4, False)
    assert advice.split.ratio_error < 0.05 < advice.splits[-1].ratio_error
    assert not advice.splits[-1].is_measured


def test_codes_that_never_vary_are_no_independent_slices():
    advice = recommend_axis(normal(12), encode=lambda features: torch.zeros_like(features).long())
    assert any("share no more than noise may show, 0 +- 0 nats" in doubt for doubt in advice.doubts)


def test_features_that_all_depend_alike_give_weak_evidence():
    advice = recommend_axis(normal(1, 1, 1) + normal(8, 4, 4, seed=1))
    assert any("not clearly less" in doubt for doubt in advice.doubts)
    assert advice.split.ratio == pytest.approx(1, abs=0.1)


def test_two_axes_that_do_equally_well_give_weak_evidence():
    channels = normal(2, 4, 1, seed=1).repeat_interleave(4, 3)  # a row of a channel is one variable
    advice = recommend_axis(channels + normal(2, 4, 4, seed=2))
    assert any("would do as well" in doubt for doubt in advice.doubts)


def test_few_samples_give_weak_evidence():
    advice = recommend_axis(independent_channel_groups(3)[:40])
    assert "40 samples are few; 4 codes per feature ask for 80" in advice.doubts


def test_features_that_never_vary_do_not_disturb():
    features = independent_channel_groups(3)
    features[:, :, 0] = 0.0
    assert (recommend_axis(features).axis, recommend_axis(features).num_slices) == (1, 3)


def test_the_print_marks_the_recommended_split_among_all():
    lines = str(recommend_axis(independent_channel_groups(3), axes=[1], max_slices=6)).splitlines()
    assert lines[0] == "Split axis 1 into 3 slices."
    assert [line.split()[1] for line in lines[2:]] == ["2", "3", "4", "6"]
    assert [line.split()[1] for line in lines if line.endswith("<-")] == ["3"]


def test_memory_mapped_features_are_read(tmp_path):
    np.save(tmp_path / "features.npy", independent_channel_groups(3).numpy())
    assert recommend_axis(np.load(tmp_path / "features.npy", mmap_mode="r")).num_slices == 3


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"axis must lie in \[1, 3\), axis 0 being the samples; got 3"):
        recommend_axis(normal(4, 4), axes=[3])
    with pytest.raises(ValueError, match="axes must hold at least one axis; got none; leave it out for all"):
        recommend_axis(normal(4, 4), axes=[])
    with pytest.raises(ValueError, match="max_features must be at least 2, to form pairs; got 1"):
        recommend_axis(normal(4, 4), max_features=1)
    with pytest.raises(ValueError, match="features must be finite"):
        recommend_axis(normal(4, 4) / 0)
    with pytest.raises(ValueError, match="features must hold at least 2 that vary over the samples; got 0"):
        recommend_axis(torch.zeros(30, 4))
    with pytest.raises(ValueError, match=r"2 to 16 slices divide.*got shape \(500, 17\)"):
        recommend_axis(normal(17))


def test_more_slices_than_were_tried_are_a_doubt():
    features = independent_channel_groups(6)
    advice = recommend_axis(features, max_slices=3)
    assert (advice.axis, advice.num_slices) == (1, 3)
    assert advice.doubts == ("more than 3 slices of axis 1 were not tried, and may do as well; raise max_slices",)
    assert not recommend_axis(features, max_slices=4).is_weak  # 4 were tried, and are not as good
    assert not recommend_axis(features, max_slices=12).is_weak


def test_axes_are_a_list_of_whole_numbers():
    features = normal(8, 4, 4)
    with pytest.raises(ValueError, match=r"axes must be a list of axes; got 1; pass \[1\]"):
        recommend_axis(features, axes=1)
    with pytest.raises(ValueError, match=r"axis must lie in \[1, 4\), axis 0 being the samples; got 1.5"):
        recommend_axis(features, axes=[1.5])
