"""Grids: originals above, reconstructions below, pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from depthq import DQAE
from depthq.models import PRESETS
from depthq.pixels import image_grid, to_picture


def batch(*values, size=96, channels=3):
    return torch.stack([torch.full((channels, size, size), value, dtype=torch.uint8) for value in values])


def test_rows_stand_one_above_the_other():
    pixels = np.asarray(image_grid(batch(10, 20), batch(30, 40)))
    assert pixels.shape == (2 * 96 + 2, 2 * 96 + 2, 3)
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1], 0]
    assert corners.tolist() == [10, 20, 30, 40]
    assert pixels[0, 96, 0] == 255  # the gap


def test_more_images_than_columns_go_into_further_bands():
    pixels = np.asarray(image_grid(batch(1, 2, 3), batch(4, 5, 6), columns=2))
    assert pixels[::98, ::98, 0].tolist() == [[1, 2], [4, 5], [3, 255], [6, 255]]


def test_images_may_stand_without_a_gap():
    pixels = np.asarray(image_grid(batch(1, 2), batch(3, 4), gap=0))
    assert pixels[::96, ::96, 0].tolist() == [[1, 2], [3, 4]]
    assert pixels.shape == (2 * 96, 2 * 96, 3)


def test_small_images_are_enlarged_in_whole_pixels():
    images = torch.tensor([[[[0, 50], [100, 150]]]], dtype=torch.uint8)
    pixels = np.asarray(image_grid(images))
    assert pixels.shape == (96, 96)
    assert np.array_equal(pixels[::48, ::48], [[0, 50], [100, 150]])


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_picture_has_the_pixels_of_the_image(channels, mode):
    image = torch.randint(0, 256, (channels, 4, 6), dtype=torch.uint8)
    picture = to_picture(image)
    assert picture.mode == mode
    pixels = torch.from_numpy(np.array(picture))
    assert torch.equal(pixels if channels == 1 else pixels.permute(2, 0, 1), image.squeeze(0))


@pytest.mark.parametrize("quantizer", ["depthwise", "none"])
def test_grid_shows_what_reconstruct_gives(quantizer):
    model = DQAE(replace(PRESETS["tiny"], quantizer=quantizer)).eval()
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    ours = model.reconstruct(images)
    assert ours.shape == images.shape
    assert ours.dtype == torch.uint8
