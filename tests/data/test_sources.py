import os

import pytest

from depthq.data import DataError
from depthq.data.sources import find_images


def names(encoded):
    return [image.name for image in encoded.read(range(len(encoded)))]


def relative_names(root, split):
    return [os.path.relpath(name, root) for name in names(find_images(str(root), split))]


def test_folder_is_searched_recursively_and_sorted(tmp_path, write_images):
    write_images(tmp_path, ["b/2.PNG", "b/1.png", "a/x/3.jpeg", ".hidden/4.png", "a/.5.png"])
    (tmp_path / "notes.txt").touch()
    assert relative_names(tmp_path, "test") + relative_names(tmp_path, "train") == [
        "a/x/3.jpeg",
        "b/1.png",
        "b/2.PNG",
    ]


def test_linked_folders_are_searched(tmp_path, write_images):
    write_images(tmp_path / "elsewhere", ["1.png", "2.png"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link").symlink_to(tmp_path / "elsewhere")
    assert relative_names(tmp_path / "images", "train") == ["link/2.png"]


def test_every_tenth_image_of_a_single_split_is_for_testing(tmp_path, write_images):
    write_images(tmp_path, [f"{number:02}.png" for number in range(25)])
    test = relative_names(tmp_path, "test")
    assert test == ["00.png", "10.png", "20.png"]
    assert sorted(relative_names(tmp_path, "train") + test) == [f"{number:02}.png" for number in range(25)]


@pytest.mark.parametrize("held_out", ["test", "validation", "valid", "val", "Val"])
def test_split_subfolders_are_used_as_they_are(tmp_path, write_images, held_out):
    write_images(tmp_path, ["train/cat/1.png", "train/dog/2.png", f"{held_out}/cat/3.png", f"{held_out}/4.png"])
    assert relative_names(tmp_path, "train") == ["train/cat/1.png", "train/dog/2.png"]
    assert relative_names(tmp_path, "test") == [f"{held_out}/4.png", f"{held_out}/cat/3.png"]


def test_test_subfolder_is_preferred_to_validation(tmp_path, write_images):
    write_images(tmp_path, ["train/1.png", "val/2.png", "test/3.png"])
    assert relative_names(tmp_path, "test") == ["test/3.png"]


def test_train_subfolder_alone_is_split(tmp_path, write_images):
    write_images(tmp_path, ["train/1.png", "train/2.png"])
    assert relative_names(tmp_path, "test") == ["train/1.png"]
    assert relative_names(tmp_path, "train") == ["train/2.png"]


def test_folder_called_testimony_is_no_split(tmp_path, write_images):
    write_images(tmp_path, ["testimony/1.png", "train_set/2.png"])
    assert relative_names(tmp_path, "train") == ["train_set/2.png"]


def test_several_splits_without_a_train_one_raise(tmp_path, write_images):
    write_images(tmp_path, ["test/1.png", "val/2.png"])
    with pytest.raises(DataError, match="must have one called train; got test, val in"):
        find_images(str(tmp_path), "train")


def test_single_image_cannot_be_split(tmp_path, write_images):
    write_images(tmp_path, ["1.png"])
    with pytest.raises(DataError, match=r"images for both splits; got 1 in .*, none for train"):
        find_images(str(tmp_path), "train")


def test_parquet_rows_keep_their_order_and_are_named_by_file(tmp_path, write_parquet):
    first = write_parquet(tmp_path / "train-0.parquet", range(3))
    second = write_parquet(tmp_path / "train-1.parquet", range(3, 5))
    write_parquet(tmp_path / "test.parquet", range(5, 7), column="image")
    assert names(find_images(str(tmp_path), "train")) == [
        f"row 0 of {first}",
        f"row 1 of {first}",
        f"row 2 of {first}",
        f"row 0 of {second}",
        f"row 1 of {second}",
    ]
    assert len(find_images(str(tmp_path), "test")) == 2


def test_parquet_folders_may_be_the_splits(tmp_path, write_parquet):
    write_parquet(tmp_path / "train" / "0000.parquet", range(3))
    held_out = write_parquet(tmp_path / "validation" / "0000.parquet", range(2))
    assert names(find_images(str(tmp_path), "test")) == [f"row 0 of {held_out}", f"row 1 of {held_out}"]


def test_single_parquet_file_is_split(tmp_path, write_parquet):
    file = write_parquet(tmp_path / "train.parquet", range(12))
    assert names(find_images(str(file), "test")) == [f"row 0 of {file}", f"row 10 of {file}"]
    assert len(find_images(str(file), "train")) == 10


def test_changed_parquet_file_is_read_anew(tmp_path, write_parquet):
    file = write_parquet(tmp_path / "a.parquet", range(2))
    assert len(find_images(str(file), "train")) == 1
    write_parquet(file, range(5))
    assert len(find_images(str(file), "train")) == 4


def test_glob_characters_in_a_path_are_meant_literally(tmp_path, write_parquet):
    write_parquet(tmp_path / "[a]*" / "x.parquet", range(2))
    assert len(find_images(str(tmp_path / "[a]*"), "train")) == 1


def test_missing_path_raises(tmp_path):
    with pytest.raises(DataError, match=r"data source must exist; got .*/gone, which does not; check the path"):
        find_images(str(tmp_path / "gone"), "train")


def test_empty_folder_raises(tmp_path):
    with pytest.raises(DataError, match="must hold images or parquet files; got nothing in"):
        find_images(str(tmp_path), "train")


def test_folder_without_images_raises(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"got 1 other files, such as notes\.txt in .*image files end in \.bmp"):
        find_images(str(tmp_path), "train")


def test_folder_of_both_kinds_raises(tmp_path, write_images):
    write_images(tmp_path, ["1.png"])
    (tmp_path / "a.parquet").touch()
    with pytest.raises(DataError, match=r"not both; got 1\.png and a\.parquet in"):
        find_images(str(tmp_path), "train")


def test_cut_off_parquet_file_raises_and_is_named(tmp_path, write_parquet):
    write_parquet(tmp_path / "train.parquet", range(2))
    cut = write_parquet(tmp_path / "test.parquet", range(9))
    cut.write_bytes(cut.read_bytes()[:-100])
    assert len(find_images(str(tmp_path), "train")) == 2
    with pytest.raises(DataError, match=r"whole parquet files; got .*test\.parquet, which is cut off"):
        find_images(str(tmp_path), "test")


def test_parquet_file_with_corrupt_pages_raises(tmp_path, write_parquet):
    file = write_parquet(tmp_path / "a.parquet", range(9))
    content = file.read_bytes()
    file.write_bytes(content[:20] + bytes(300) + content[320:])
    with pytest.raises(DataError, match=r"parquet files must be readable.*a\.parquet; write them anew"):
        find_images(str(file), "train")


def test_parquet_file_without_images_raises(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"age": [1, 2], "label": [3, 4]}).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(DataError, match="must have a column of images; got the columns age, label in"):
        find_images(str(tmp_path), "train")


def test_empty_cell_of_a_parquet_file_is_named(tmp_path):
    import datasets

    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": [None, None]}, features=features)
    table.to_parquet(str(tmp_path / "a.parquet"))
    (image,) = find_images(str(tmp_path), "test").read([0])
    assert image.name.startswith("row 0 of ")
    assert image.content == b""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub whose data sets are the folders below the one returned."""
    import datasets

    load_dataset = datasets.load_dataset

    def load_from_hub(name):
        if not (tmp_path / name).is_dir():
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")
        return load_dataset(str(tmp_path / name))

    monkeypatch.setattr(datasets, "load_dataset", load_from_hub)
    return tmp_path


def test_hub_splits_are_used_as_they_are(hub, write_parquet):
    write_parquet(hub / "someone/birds" / "train.parquet", range(3))
    write_parquet(hub / "someone/birds" / "test.parquet", range(3, 5))
    assert names(find_images("someone/birds", "test")) == [
        "row 0 of hub data set someone/birds, split test",
        "row 1 of hub data set someone/birds, split test",
    ]
    assert len(find_images("someone/birds", "train")) == 3


def test_single_hub_split_is_split(hub, write_parquet):
    write_parquet(hub / "birds" / "train.parquet", range(12))
    assert [len(find_images("birds", split)) for split in ("train", "test")] == [10, 2]


def test_hub_data_set_without_images_raises(hub):
    import datasets

    (hub / "ages").mkdir()
    datasets.Dataset.from_dict({"age": [1, 2]}).to_parquet(str(hub / "ages" / "train.parquet"))
    with pytest.raises(DataError, match="got the columns age in ages"):
        find_images("ages", "train")


def test_unknown_name_raises(hub):
    with pytest.raises(DataError, match=r"must be 'bundled', .* got birbs, neither here nor loadable.*spelling"):
        find_images("birbs", "train")
