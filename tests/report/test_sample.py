import pytest
import torch

from depthq.measure import ImageSample


def drawn(count: int, size: int, seed: int = 0, batch: int = 7) -> list[int]:
    """Which of `count` images, each of its number's grey, come out."""
    sample = ImageSample(size, seed)
    for numbers in torch.arange(count, dtype=torch.uint8).split(batch):
        sample.update(numbers.view(-1, 1, 1, 1))
    return sample.images.flatten().tolist()


def test_images_are_drawn_without_replacement():
    assert len(set(drawn(50, size=8))) == 8


def test_all_come_out_where_there_are_fewer():
    assert sorted(drawn(5, size=8)) == [0, 1, 2, 3, 4]


def test_the_same_seed_draws_the_same():
    assert drawn(50, size=8) == drawn(50, size=8)
    assert drawn(50, size=8) != drawn(50, size=8, seed=1)


def test_each_image_has_the_same_chance():
    draws = torch.tensor([number for seed in range(500) for number in drawn(20, size=5, seed=seed)])
    assert torch.bincount(draws, minlength=20).tolist() == pytest.approx([125] * 20, abs=5 * (500 / 4 * 3 / 4) ** 0.5)


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="images must hold at least one image; got none"):
        _ = ImageSample(8).images
