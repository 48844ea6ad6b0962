import os

import numpy as np
import pytest

from depthq.data import DataError
from depthq.data.origin import Origin
from depthq.data.sources import count_encoded_images, find_images


def names(encoded):
    return [image.name for image in encoded.read(range(len(encoded)))]


def relative_names(root, split):
    return [os.path.relpath(name, root) for name in names(find_images(str(root), split))]


def ids(encoded):
    return [origin.id for origin in encoded.origins(range(len(encoded)))]


def test_folder_is_searched_recursively_and_sorted(tmp_path, write_images):
    write_images(tmp_path, ["b/2.PNG", "b/1.png", "a/x/3.jpeg", ".hidden/4.png", "a/.5.png"])
    (tmp_path / "notes.txt").touch()
    assert relative_names(tmp_path, "test") + relative_names(tmp_path, "train") == [
        "b/2.PNG",
        "a/x/3.jpeg",
        "b/1.png",
    ]


def test_linked_folders_are_searched(tmp_path, write_images):
    write_images(tmp_path / "elsewhere", ["1.png", "2.png"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link").symlink_to(tmp_path / "elsewhere")
    assert relative_names(tmp_path / "images", "train") == ["link/2.png"]


def test_a_tenth_of_a_single_split_is_for_testing(tmp_path, write_images):
    write_images(tmp_path, [f"{number:03}.png" for number in range(256)])
    test, train = relative_names(tmp_path, "test"), relative_names(tmp_path, "train")
    assert 15 <= len(test) <= 37
    assert sorted(train + test) == [f"{number:03}.png" for number in range(256)]


def test_another_image_moves_no_other_to_the_test_split(tmp_path, write_images):
    write_images(tmp_path, [f"{number:02}.png" for number in range(30)])
    before = set(relative_names(tmp_path, "train"))
    assert len(before) == 28
    for name in ("aaa.png", "05b.png", "zzz.png"):
        write_images(tmp_path, [name])
        assert set(relative_names(tmp_path, "train")) - {"aaa.png", "05b.png", "zzz.png"} == before


def test_few_images_have_one_for_testing(tmp_path, write_images):
    for count in range(2, 9):
        write_images(tmp_path / str(count), [f"{number}.png" for number in range(count)])
        assert len(relative_names(tmp_path / str(count), "test")) == 1


def test_names_tell_an_image_from_others_in_another_folder_too(tmp_path, write_images, write_parquet):
    write_images(tmp_path / "a", ["1.png", "x/2.png"])
    write_images(tmp_path / "b", ["test/1.png", "train/2.png"])
    size = (tmp_path / "a" / "x" / "2.png").stat().st_size
    assert find_images(str(tmp_path / "a"), "all").names()[1] == f"2.png:{size}"
    assert find_images(str(tmp_path / "b"), "train").names() == [f"2.png:{size}"]
    file = write_parquet(tmp_path / "rows.parquet", range(3))
    size = file.stat().st_size
    assert find_images(str(file), "all").names() == [f"rows.parquet:{size}:{row}" for row in range(3)]


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
    assert relative_names(tmp_path, "test") == ["train/2.png"]
    assert relative_names(tmp_path, "train") == ["train/1.png"]


def test_folder_called_testimony_is_no_split(tmp_path, write_images):
    write_images(tmp_path, ["testimony/1.png", "train_set/2.png"])
    assert relative_names(tmp_path, "train") == ["train_set/2.png"]


def test_all_images_of_a_folder_are_those_of_any_split_and_of_none(tmp_path, write_images):
    files = ["b.png", "test/1.png", "train/cat/1.png", "val/2.png"]
    write_images(tmp_path, files)
    everything = find_images(str(tmp_path), "all")
    assert relative_names(tmp_path, "all") == ids(everything) == files
    assert len(everything) == count_encoded_images(str(tmp_path)) == 4


def test_ids_of_files_are_paths_relative_to_the_source_and_have_no_label(tmp_path, write_images):
    write_images(tmp_path, ["train/cat/1.png", "train/dog/2.png", "test/3.png"])
    assert find_images(f"{tmp_path}/", "train").origins([1, 0]) == [
        Origin("train/dog/2.png"),
        Origin("train/cat/1.png"),
    ]


def test_several_splits_without_a_train_one_raise(tmp_path, write_images):
    write_images(tmp_path, ["test/1.png", "val/2.png"])
    with pytest.raises(DataError, match="must have one called train; got test/, val/ in"):
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


def test_ids_of_parquet_rows_are_their_numbers_behind_the_file_in_a_folder(tmp_path, write_parquet):
    write_parquet(tmp_path / "train-0.parquet", range(3))
    write_parquet(tmp_path / "train-1.parquet", range(3, 5))
    write_parquet(tmp_path / "test.parquet", range(5, 7), column="image")  # in another column than the others
    train = ["train-0.parquet:0", "train-0.parquet:1", "train-0.parquet:2", "train-1.parquet:0", "train-1.parquet:1"]
    assert ids(find_images(str(tmp_path), "train")) == train
    everything = find_images(str(tmp_path), "all")
    assert ids(everything) == ["test.parquet:0", "test.parquet:1", *train]
    assert [origin.label for origin in everything.origins(range(7))] == [5, 6, 0, 1, 2, 3, 4]
    assert len(everything) == count_encoded_images(str(tmp_path)) == 7


def test_ids_and_labels_of_a_parquet_file_are_those_of_its_rows(tmp_path, write_parquet):
    file = write_parquet(tmp_path / "all.parquet", range(100, 112))
    assert find_images(str(file), "test").origins([0]) == [Origin("6", 106)]
    assert ids(find_images(str(file), "all")) == [str(row) for row in range(12)]
    assert count_encoded_images(str(file)) == 12


@pytest.mark.parametrize(
    ("values", "label", "label_type"),
    [(["cat", "dog"], "dog", str), ([1, None], None, int), ([0.5, 1.5], None, None)],
)
def test_labels_are_integers_or_strings(tmp_path, encode, values, label, label_type):
    import datasets

    cells = [{"bytes": encode(np.zeros((8, 8), np.uint8)), "path": None}] * 2
    table = datasets.Dataset.from_dict({"image": cells, "label": values}).cast_column("image", datasets.Image())
    table.to_parquet(str(tmp_path / "a.parquet"))
    images = find_images(str(tmp_path / "a.parquet"), "all")
    assert images.origins([1]) == [Origin("1", label)]
    assert images.label_type is label_type


def test_parquet_folders_may_be_the_splits(tmp_path, write_parquet):
    write_parquet(tmp_path / "train" / "0000.parquet", range(3))
    held_out = write_parquet(tmp_path / "validation" / "0000.parquet", range(2))
    assert names(find_images(str(tmp_path), "test")) == [f"row 0 of {held_out}", f"row 1 of {held_out}"]


def test_single_parquet_file_is_split(tmp_path, write_parquet):
    file = write_parquet(tmp_path / "train.parquet", range(12))
    assert names(find_images(str(file), "test")) == [f"row 6 of {file}"]
    assert len(find_images(str(file), "train")) == 11


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
    with pytest.raises(DataError, match="must hold images, parquet or tar files; got nothing in"):
        find_images(str(tmp_path), "train")


def test_folder_without_images_raises(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"got other files, 1 \.txt in .*image files end in .*\.bmp"):
        find_images(str(tmp_path), "train")


def test_folder_of_both_kinds_raises(tmp_path, write_images):
    write_images(tmp_path, ["1.png"])
    (tmp_path / "a.parquet").touch()
    with pytest.raises(DataError, match=r"not several kinds; got 1\.png and a\.parquet in"):
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
    image, _ = find_images(str(tmp_path), "all").read([0, 1])
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
    everything = find_images("someone/birds", "all")
    assert ids(everything) == ["train:0", "train:1", "train:2", "test:0", "test:1"]
    assert everything.origins([4]) == [Origin("test:1", 4)]
    assert len(everything) == count_encoded_images("someone/birds") == 5


def test_a_hub_split_that_is_not_used_is_told(hub, write_parquet):
    for count, split in enumerate(("train", "validation", "test"), start=3):
        write_parquet(hub / "birds" / f"{split}.parquet", range(count))
    for split in ("train", "test"):
        assert find_images("birds", split).left_out == ("split validation",)
    assert find_images("birds", "all").left_out == ()


def test_a_hub_behind_a_proxy_is_not_looked_for_directly(hub, write_parquet, monkeypatch):
    def unreachable(*_):
        raise OSError("no route")

    write_parquet(hub / "birds" / "train.parquet", range(12))
    monkeypatch.setattr("depthq.data.hub.socket.create_connection", unreachable)
    monkeypatch.setattr("depthq.data.hub.getproxies", lambda: {"https": "http://proxy:3128"})
    assert len(find_images("birds", "all")) == 12


def test_single_hub_split_is_split(hub, write_parquet):
    write_parquet(hub / "birds" / "train.parquet", range(12))
    assert [len(find_images("birds", split)) for split in ("train", "test", "all")] == [11, 1, 12]


def test_hub_data_set_without_images_raises(hub):
    import datasets

    (hub / "ages").mkdir()
    datasets.Dataset.from_dict({"age": [1, 2]}).to_parquet(str(hub / "ages" / "train.parquet"))
    with pytest.raises(DataError, match="got the columns age in ages"):
        find_images("ages", "train")


def test_unknown_name_raises(hub):
    with pytest.raises(DataError, match=r"must be 'bundled', .* got birbs, neither here nor loadable.*spelling"):
        find_images("birbs", "train")
