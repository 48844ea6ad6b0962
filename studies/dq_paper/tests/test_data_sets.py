"""Which data an experiment is on: checked before it is used, and told how to get it."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from depthq.data import DataError, describe_images, open_images
from studies.dq_paper.data_sets import DATA_SETS, open_data_set, resized

REMEDY = re.escape("; give --data photos=FOLDER, a folder with its parquet files (train*, test*) or images (train/")


def test_data_set_that_holds_what_it_must_is_opened(photos, declare):
    declare("photos", "", (3, 16, 16), 35, 5)
    assert open_data_set("photos", {"photos": str(photos)}) == str(photos)


def test_number_of_images_may_be_left_open(photos, declare):
    declare("photos", str(photos), (3, 16, 16))
    assert open_data_set("photos", {}) == str(photos)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (((3, 16, 16), 37, 5), r"must have 37 train images of \(3, 16, 16\); got 35 of \(3, 16, 16\) in .*photos"),
        (((3, 16, 16), 35, 4), r"must have 4 test images of \(3, 16, 16\); got 5 of \(3, 16, 16\) in .*photos"),
        (((3, 32, 32), 35, 5), r"must have 35 train images of \(3, 32, 32\); got 35 of \(3, 16, 16\) in .*photos"),
        (((1, 16, 16),), r"must have any number of train images of \(1, 16, 16\); got 35 of \(3, 16, 16\) in .*photos"),
    ],
)
def test_another_data_set_is_refused(photos, declare, declaration, message):
    declare("photos", "", *declaration)
    with pytest.raises(DataError, match=f"data set photos {message}{REMEDY}"):
        open_data_set("photos", {"photos": str(photos)})


def test_missing_data_set_is_named_with_the_remedy(tmp_path, declare):
    declare("photos", "", (3, 16, 16))
    with pytest.raises(DataError, match=rf"photos must be readable; got: .*{tmp_path / 'nowhere'}.*{REMEDY}"):
        open_data_set("photos", {"photos": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("name", ["imagenet32", "imagenet64", "imagenet-sample"])
def test_data_set_that_no_hub_has_must_be_given_and_it_is_said_where_from(name):
    message = rf"{name} must be given, as it has no place on the hub; got none; get it \(.*image-net.org.*\) and give "
    with pytest.raises(DataError, match=message):
        open_data_set(name, {})


def test_bundled_photos_are_always_there():
    assert open_data_set("bundled", {}) == "bundled"


@pytest.mark.parametrize("name", DATA_SETS)
def test_images_of_every_data_set_are_square(name):
    channels, height, width = DATA_SETS[name].shape
    assert channels in (1, 3)
    assert height == width


def write(pixels, *files):
    for file in files:
        file.parent.mkdir(parents=True)
        Image.fromarray(np.array(pixels, np.uint8)).save(file)


def test_smaller_images_are_means_of_squares(tmp_path):
    pixels = [
        [0, 1, 255, 255],
        [2, 5, 255, 255],
        [10, 10, 7, 8],
        [10, 11, 7, 8],  # means 10.25 and 7.5: to the nearest whole number, of two as near to the even one
    ]
    write(pixels, tmp_path / "data" / "train" / "0.png", tmp_path / "data" / "test" / "0.png")
    folder = resized(str(tmp_path / "data"), 2, tmp_path / "small")
    assert open_images(folder, "test")[0].tolist() == [[[2, 255], [10, 8]]]


@pytest.mark.parametrize("split", ["train", "test"])
def test_smaller_data_set_is_the_same_one_halved(photos, tmp_path, split):
    folder = resized(str(photos), 8, tmp_path / "small")
    small, large = open_images(folder, split), open_images(photos, split)
    assert len(small) == len(large) == {"train": 35, "test": 5}[split]
    for number in range(len(large)):  # these photos are blocks of 4 x 4 pixels
        assert np.array_equal(small[number], large[number][:, ::2, ::2])


def test_data_set_of_the_right_size_is_taken_as_it_is(photos, tmp_path):
    assert resized(str(photos), 16, tmp_path / "small") == str(photos)
    assert not (tmp_path / "small").exists()


def test_smaller_data_set_is_written_once(photos, tmp_path):
    folder = tmp_path / "small"
    assert resized(str(photos), 8, folder) == str(folder)
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert sorted(file.name for file in before) == ["test.parquet", "train.parquet"]
    assert resized(str(photos), 8, folder) == str(folder)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_size_that_does_not_divide_the_side_is_refused(photos, tmp_path):
    with pytest.raises(ValueError, match=r"image size must divide the 16 pixels of .*photos; got 6; take a divisor"):
        resized(str(photos), 6, tmp_path / "small")


def test_bundled_patches_can_be_made_smaller(tmp_path):
    folder = resized("bundled", 16, tmp_path / "small")
    assert describe_images(folder, "test") == (598, (3, 16, 16))
    large = torch.from_numpy(open_images("bundled", "test")[5]).double()
    expected = large.unflatten(1, (16, 2)).unflatten(3, (16, 2)).mean((2, 4)).round()
    assert torch.equal(torch.from_numpy(open_images(folder, "test")[5]).double(), expected)
