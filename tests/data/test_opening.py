import subprocess
import sys

import numpy as np
import pytest

from depthq.data import DataError, HeldImages, LazyImages, count_images, describe_images, open_images, opening


def test_small_set_of_one_shape_is_held(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr(opening, "_CHUNK_SIZE", 7)
    write_images(tmp_path, [f"{number:02}.png" for number in range(30)])
    images = open_images(tmp_path, "train")
    assert isinstance(images, HeldImages)
    assert (len(images), images.num_channels, images.image_size) == (28, 3, 8)
    numbers = np.delete(np.arange(30), [6, 25])
    np.testing.assert_array_equal(images.pixels[:, 1, 2, 3].numpy(), numbers)


def test_large_set_is_lazy_and_has_the_same_pixels(tmp_path, write_parquet, monkeypatch):
    write_parquet(tmp_path / "train.parquet", range(30))
    held = open_images(tmp_path, "train")
    monkeypatch.setattr(opening, "DECODED_BYTES", len(held) * 3 * 8 * 8 - 1)  # a byte too few
    lazy = open_images(tmp_path, "train")
    assert isinstance(held, HeldImages)
    assert isinstance(lazy, LazyImages)
    for index in range(len(held)):
        np.testing.assert_array_equal(lazy[index], held[index])


def test_set_of_many_sizes_is_lazy(tmp_path, write_images):
    write_images(tmp_path, ["test/0.png", "train/1.png"], size=(10, 9))
    write_images(tmp_path, ["train/2.png"], size=(8, 12))
    images = open_images(tmp_path, "train", image_size=8)
    assert isinstance(images, LazyImages)
    assert [images[0].shape, images[1].shape] == [(3, 10, 9), (3, 8, 12)]


def test_late_image_of_another_size_makes_the_set_lazy(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr(opening, "_NUM_PROBED", 1)
    write_images(tmp_path, ["test/0.png", "train/1.png"], size=(8, 8))
    write_images(tmp_path, ["train/2.png"], size=(8, 12))
    assert isinstance(open_images(tmp_path, "train", image_size=8), LazyImages)


def test_lazy_set_counts_nothing_before_it_is_read(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr(opening, "_NUM_PROBED", 1)
    write_images(tmp_path, ["test/0.png", "train/1.png"], size=(8, 8))
    (tmp_path / "train/2.png").write_bytes(b"no image")
    write_images(tmp_path, ["train/3.png"], size=(8, 12))
    assert open_images(tmp_path, "train", image_size=8, on_bad_image="skip").num_skipped == 0


def test_late_image_of_another_size_raises_where_image_size_is_not_given(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr(opening, "_NUM_PROBED", 1)
    write_images(tmp_path, ["test/0.png", "train/1.png"], size=(8, 8))
    write_images(tmp_path, ["train/2.png"], size=(8, 12))
    with pytest.raises(DataError, match=r"one size .* here 8 x 8; got .*2\.png of 8 x 12; pass image_size"):
        open_images(tmp_path, "train")


def test_different_sizes_raise_where_image_size_is_not_given(tmp_path, write_images):
    write_images(tmp_path, ["test/0.png", "train/1.png"], size=(8, 8))
    write_images(tmp_path, ["train/2.png"], size=(9, 9))
    with pytest.raises(DataError, match=r"got .*1\.png of 8 x 8 and .*2\.png of 9 x 9; pass image_size to crop"):
        open_images(tmp_path, "train")


def test_oblong_images_raise_where_image_size_is_not_given(tmp_path, write_images):
    write_images(tmp_path, ["1.png", "2.png"], size=(8, 12))
    with pytest.raises(DataError, match=r"must be square .* got .*\.png of 8 x 12; pass image_size"):
        open_images(tmp_path, "train")


def test_too_small_image_raises(tmp_path, write_images):
    write_images(tmp_path, ["1.png", "2.png"])
    with pytest.raises(DataError, match=r"at least image_size, 9 x 9; got .*\.png of 8 x 8; pass a smaller"):
        open_images(tmp_path, "train", image_size=9)


def test_gray_set_has_one_channel(tmp_path, encode):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(encode(np.full((8, 8), 7, np.uint8)))
    images = open_images(tmp_path, "train")
    assert images.num_channels == 1
    assert images[0].shape == (1, 8, 8)


def test_gray_image_in_a_colour_set_is_expanded(tmp_path, encode, write_images):
    write_images(tmp_path, ["test/0.png", "train/2.png"])
    (tmp_path / "train" / "1.png").write_bytes(encode(np.full((8, 8), 7, np.uint8)))
    images = open_images(tmp_path, "train", image_size=8)
    assert images.num_channels == 3
    assert np.unique(images[0]).tolist() == [7]


def test_corrupt_image_raises_and_is_named(tmp_path, write_images):
    write_images(tmp_path, ["1.png", "2.png", "3.png"])
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"must be whole and readable; got .*3\.png"):
        open_images(tmp_path, "train")


def test_skipped_images_are_left_out_counted_and_told_of(tmp_path, write_images):
    write_images(tmp_path, [f"{number:02}.png" for number in range(30)])
    for number in (3, 4, 5, 7):
        (tmp_path / f"{number:02}.png").write_bytes(b"no image")
    told = r"skipped 4 bad images of 28: .*03\.png, .*04\.png, .*05\.png, \.\.\."
    with pytest.warns(UserWarning, match=told):
        images = open_images(tmp_path, "train", on_bad_image="skip")
    assert (len(images), images.num_skipped) == (24, 4)
    assert [int(image[0, 0, 0]) for image in images.pixels[:5]] == [0, 1, 2, 8, 9]
    assert [origin.id for origin in images.origins([2, 3])] == ["02.png", "08.png"]
    assert [name.split(":")[0] for name in images.names()[2:4]] == ["02.png", "08.png"]


def test_transparent_and_too_small_images_are_skipped_too(tmp_path, encode, write_images):
    write_images(tmp_path, ["test/0.png", "train/0.png", "train/1.png"])
    write_images(tmp_path, ["train/2.png"], size=(3, 3))
    (tmp_path / "train/3.png").write_bytes(encode(np.full((8, 8, 4), 9, np.uint8)))
    images = open_images(tmp_path, "train", image_size=8, on_bad_image="skip")
    assert [images[index] is None for index in range(4)] == [False, False, True, True]
    assert [images[index] is None for index in range(4)] == [False, False, True, True]  # counted once only
    assert images.num_skipped == 2


def test_nothing_readable_raises_even_when_skipping(tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"must hold a readable image; got none among the 1 tried, such as .*2\.png"):
        open_images(tmp_path, "train", on_bad_image="skip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, r"split must be \"train\", \"test\" or \"all\"; got 'val'"),
        ({"split": "train", "on_bad_image": "ignore"}, "on_bad_image must be .*; got 'ignore'"),
        ({"split": "train", "image_size": 0}, "image_size must be at least 1; got 0"),
    ],
)
def test_arguments_out_of_range_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        open_images("bundled", **arguments)


def test_heavy_packages_are_imported_only_where_they_are_used():
    code = "import depthq.data, sys; print(*{'datasets', 'skimage', 'pyarrow', 'lightning', 'PIL'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize("source", ["images", "parquet"])
def test_all_images_of_a_source_are_opened_in_its_own_order(tmp_path, write_images, write_parquet, source):
    if source == "images":
        source = write_images(tmp_path, [f"{number:02}.png" for number in range(30)])
    else:
        source = write_parquet(tmp_path / "all.parquet", range(30))
    images = open_images(source, "all")
    assert images[17][0, 0, 0] == 17
    assert len(images) == count_images(source) == 30


def test_a_single_image_is_all_there_is(tmp_path, write_images):
    assert len(open_images(write_images(tmp_path, ["1.png"]), "all")) == 1


@pytest.mark.parametrize("split", ["train", "test", "all"])
@pytest.mark.parametrize("source", ["bundled", "images", "parquet"])
def test_description_is_that_of_the_open_images(tmp_path, write_images, write_parquet, source, split):
    if source == "images":
        source = write_images(tmp_path, [f"{number:02}.png" for number in range(30)])
    elif source == "parquet":
        source = write_parquet(tmp_path / "all.parquet", range(30))
    images = open_images(source, split)
    shape = (images.num_channels, images.image_size, images.image_size)
    assert describe_images(source, split) == (len(images), shape)


def test_description_knows_gray_images(tmp_path, encode):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encode(np.full((8, 8), number, np.uint8)))
    assert describe_images(tmp_path, "test") == (1, (1, 8, 8))


def test_description_needs_no_pixels(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr(opening, "_read_into", None)
    assert describe_images(write_images(tmp_path, ["1.png", "2.png"]), "train") == (1, (3, 8, 8))


def test_images_of_many_sizes_have_no_description(tmp_path, write_images):
    write_images(tmp_path, ["test/0.png", "train/1.png"], size=(8, 8))
    write_images(tmp_path, ["train/2.png"], size=(9, 9))
    with pytest.raises(DataError, match=r"must share one size .* got .*1\.png of 8 x 8 and .*2\.png of 9 x 9"):
        describe_images(tmp_path, "train")


def test_oblong_images_have_no_description(tmp_path, write_images):
    write_images(tmp_path, ["1.png", "2.png"], size=(8, 12))
    with pytest.raises(DataError, match=r"must be square .* got .*\.png of 8 x 12"):
        describe_images(tmp_path, "train")
