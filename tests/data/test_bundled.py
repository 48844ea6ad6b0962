from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from depthq.data import DataError, count_images, open_images
from depthq.data.bundled import PHOTOS, bundled_patches


def photo(name):
    return np.asarray(Image.open(Path(skimage.__file__).parent / "data" / name)).transpose(2, 0, 1)


def test_no_photo_is_on_both_sides():
    assert not set(PHOTOS["train"]) & set(PHOTOS["test"])
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= set(PHOTOS["train"])  # one scene, seen twice


def test_patches_are_as_many_as_the_docstring_says():
    assert bundled_patches("train", 32).pixels.shape == (7265, 3, 32, 32)
    assert bundled_patches("test", 32).pixels.shape == (598, 3, 32, 32)


def test_all_patches_are_those_of_both_splits_each_with_its_own_id():
    train, test, both = (bundled_patches(split, 64) for split in ("train", "test", "all"))
    assert torch.equal(both.pixels, torch.cat([train.pixels, test.pixels]))
    assert count_images("bundled", image_size=64) == len(both)
    ids = [origin.id for origin in both.origins(range(len(both)))]
    assert len(set(ids)) == len(both)
    assert ids[1] == "hubble_deep_field.jpg:0,32"
    assert ids[len(train) + 1] == "astronaut.png:0,64"


def test_test_patches_tile_the_photos():
    patches = bundled_patches("test", 100).pixels
    coffee = photo("coffee.png")  # 400 x 600: 4 x 6 patches, the last of all
    tiles = patches[-24:].view(4, 6, 3, 100, 100).permute(2, 0, 3, 1, 4).reshape(3, 400, 600)
    np.testing.assert_array_equal(tiles.numpy(), coffee)


def test_training_patches_overlap_by_half():
    patches = bundled_patches("train", 64).pixels
    assert torch.equal(patches[0, :, :, 32:], patches[1, :, :, :32])


def test_large_photos_are_halved_by_a_box_filter():
    corner = photo("hubble_deep_field.jpg")[:, :64, :64].astype(float)
    expected = corner.reshape(3, 32, 2, 32, 2).mean((2, 4))
    patch = bundled_patches("train", 32)[0]
    assert np.abs(patch - expected).max() <= 0.5


def test_photos_of_ordinary_size_are_cut_as_they_are():
    np.testing.assert_array_equal(bundled_patches("test", 32)[0], photo("astronaut.png")[:, :32, :32])


def test_open_images_gives_them_at_32_pixels_unless_told_otherwise():
    images = open_images("bundled", "test")
    assert (images.num_channels, images.image_size, len(images)) == (3, 32, 598)
    assert open_images("bundled", "test", image_size=100).image_size == 100


def test_patches_larger_than_a_photo_raise():
    with pytest.raises(DataError, match=r"image_size must be at most .* got 301 for chelsea\.png of 300 x 451"):
        bundled_patches("test", 301)
