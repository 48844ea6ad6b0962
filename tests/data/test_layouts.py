"""Folders and tables as people have them: names of splits, classes, links, columns, and what is told of all that."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from depthq.data import DataError, open_images, open_whole_images, what_was_taken


def draw(path, value=0, size=(8, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode == "L" else (value,) * len(mode)
    Image.new(mode, size, colour).save(path, **options)


def folder(root, **counts):
    """`counts` images in each folder; _ stands for the root."""
    value = 0
    for name, count in counts.items():
        for index in range(count):
            value += 1
            draw(root / ("" if name == "_" else name) / f"{index}.png", value)
    return root


def ids(source, split):
    images = open_images(source, split)
    return {origin.id for origin in images.origins(range(len(images)))}


@pytest.mark.parametrize("train", ["train", "Training"])
@pytest.mark.parametrize("test", ["test", "testing", "TEST", "eval", "evaluation", "val", "valid", "validation", "dev"])
def test_split_folders_by_any_usual_name(tmp_path, train, test):
    folder(tmp_path, **{train: 20, test: 5})
    assert ids(tmp_path, "train") == {f"{train}/{index}.png" for index in range(20)}
    assert ids(tmp_path, "test") == {f"{test}/{index}.png" for index in range(5)}


def test_it_is_told_what_was_taken_and_left_out(tmp_path):
    folder(tmp_path, train=3, test=2, val=4, extra=1)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "photo.xyz").write_text("")
    images = open_images(tmp_path, "train")
    assert what_was_taken("train", images) == (
        "train: 3 images from train/; left out: 1 of .txt; 1 of .xyz; 4 files in val/; "
        "1 file in extra/, which is named like no split"
    )
    assert what_was_taken("test", open_images(tmp_path, "test")).startswith("test: 2 images from test/; left out")


def test_one_folder_is_cut_by_hash_and_that_is_told(tmp_path):
    folder(tmp_path, _=30)
    sentence = what_was_taken("test", open_images(tmp_path, "test"))
    assert sentence.endswith(f"images from {tmp_path}, one in ten by a hash of its id")


def test_a_class_that_is_called_like_a_split_is_refused_with_the_remedy(tmp_path):
    folder(tmp_path, boat=10, bus=10, train=10)
    message = (
        r"got train/ beside boat/, bus/ in .*; if these are classes, rename the one .*; .* give .*train as the source"
    )
    for split in ("train", "test"):
        with pytest.raises(DataError, match=message):
            open_images(tmp_path, split)
    assert len(open_images(tmp_path, "all")) == 30


def test_classes_are_classes(tmp_path):
    folder(tmp_path, boat=10, trains=10, contest=10)
    assert len(open_images(tmp_path, "train")) + len(open_images(tmp_path, "test")) == 30


def test_parquet_names_tell_splits(tmp_path):
    table = pa.table({"image": [{"bytes": _png(index), "path": None} for index in range(6)]})
    for name in ("training-00000-of-00001", "my_eval_set", "extra"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    train, test = (open_images(tmp_path, split) for split in ("train", "test"))
    assert what_was_taken("train", train) == (
        "train: 6 images from training-00000-of-00001.parquet; left out: "
        "1 file in extra.parquet, which is named like no split"
    )
    assert test.taken_from == "my_eval_set.parquet"


class TestLinks:
    def test_a_link_to_the_folder_itself_adds_nothing(self, tmp_path):
        folder(tmp_path, _=11)
        (tmp_path / "self").symlink_to(".")
        (tmp_path / "again").symlink_to(tmp_path)
        train, test = ids(tmp_path, "train"), ids(tmp_path, "test")
        assert train | test == {f"{index}.png" for index in range(11)}
        assert not train & test

    def test_links_elsewhere_are_followed_and_loops_end(self, tmp_path):
        folder(tmp_path / "there", _=5)
        (tmp_path / "there" / "back").symlink_to(tmp_path / "here")
        folder(tmp_path / "here", _=3)
        (tmp_path / "here" / "away").symlink_to(tmp_path / "there")
        assert ids(tmp_path / "here", "all") == {*(f"{i}.png" for i in range(3)), *(f"away/{i}.png" for i in range(5))}

    def test_a_file_of_both_splits_is_tested_on_alone(self, tmp_path):
        folder(tmp_path, train=6, val=2)
        (tmp_path / "val" / "linked.png").symlink_to(tmp_path / "train" / "0.png")
        os.link(tmp_path / "train" / "1.png", tmp_path / "val" / "hard.png")
        assert ids(tmp_path, "train") == {f"train/{index}.png" for index in range(2, 6)}
        assert ids(tmp_path, "test") == {"val/0.png", "val/1.png", "val/linked.png", "val/hard.png"}
        assert "2 files reached twice" in what_was_taken("train", open_images(tmp_path, "train"))

    def test_a_folder_counts_where_it_is_and_not_behind_a_link(self, tmp_path):
        folder(tmp_path, train=4, test=2)
        (tmp_path / "all").symlink_to(tmp_path / "train")
        (tmp_path / "train" / "more").symlink_to(tmp_path / "test")
        assert len(ids(tmp_path, "train")) == 4
        assert len(ids(tmp_path, "test")) == 2


def _png(value):
    from io import BytesIO

    file = BytesIO()
    Image.new("RGB", (8, 8), (value,) * 3).save(file, "PNG")
    return file.getvalue()


class TestColumns:
    def table(self, tmp_path, **columns):
        path = tmp_path / "data.parquet"
        pq.write_table(pa.table(columns), path)
        return path

    def pixels(self, path, **options):
        return sorted(int(image[0, 0, 0]) for image in self.images(path, **options))

    def images(self, path, **options):
        images = open_images(path, "all", **options)
        return [images[index] for index in range(len(images))]

    def test_the_usual_name_wins(self, tmp_path):
        path = self.table(tmp_path, mask=[_png(1), _png(2)], image=[_png(3), _png(4)])
        assert self.pixels(path) == [3, 4]
        assert self.pixels(path, image_column="mask") == [1, 2]

    def test_the_usual_name_wins_over_what_is_declared_and_what_is_bytes(self, tmp_path):
        from datasets import Dataset, Features, Image, Sequence, Value

        numbers = Sequence(Sequence(Value("int64")))
        for name, kind, value in (("image", Value("binary"), _png(3)), ("pixels", numbers, [[3] * 8] * 8)):
            columns = {"mask": [{"bytes": _png(1), "path": None}], "more": [_png(2)], name: [value]}
            features = Features({"mask": Image(), "more": Value("binary"), name: kind})
            path = tmp_path / f"{name}.parquet"
            Dataset.from_dict(columns, features=features).to_parquet(str(path))
            assert self.pixels(path) == [3]
            assert self.pixels(path, image_column="mask") == [1]

    def test_several_are_refused_and_listed(self, tmp_path):
        path = self.table(tmp_path, left=[_png(1)], right=[_png(2)])
        with pytest.raises(DataError, match=r"got left, right in .*; pass an image_column"):
            open_images(path, "all")
        with pytest.raises(DataError, match=r"image_column must be one of left, right, .* got 'middle'"):
            open_images(path, "all", image_column="middle")

    @pytest.mark.parametrize("kind", ["bytes", "struct", "lists", "channels", "gray"])
    def test_what_holds_images(self, tmp_path, kind):
        cells = {
            "bytes": lambda value: _png(value),
            "struct": lambda value: {"bytes": _png(value), "path": "a.png"},
            "lists": lambda value: np.full((8, 8, 3), value).tolist(),
            "channels": lambda value: np.full((3, 8, 8), value).tolist(),
            "gray": lambda value: np.full((8, 8), value).tolist(),
        }[kind]
        path = self.table(tmp_path, number=[1, 2], picture=[cells(7), cells(250)])
        assert self.pixels(path) == [7, 250]
        assert self.images(path)[0].shape == ((1, 8, 8) if kind == "gray" else (3, 8, 8))

    @pytest.mark.parametrize("value", [-1, 256])
    def test_numbers_that_are_no_pixels_are_refused(self, tmp_path, value):
        path = self.table(tmp_path, image=[np.full((8, 8), value).tolist()])
        with pytest.raises(DataError, match=r"must be whole numbers 0..255 .* in row 0 of"):
            open_images(path, "all")

    def test_labels_by_name(self, tmp_path):
        path = self.table(tmp_path, image=[_png(1), _png(2)], kind=["a", "b"], label=[7, 8], weight=[0.5, 1.5])
        origins = open_images(path, "all", label_column="kind").origins([0, 1])
        assert [origin.label for origin in origins] == ["a", "b"]
        assert [origin.label for origin in open_images(path, "all").origins([0, 1])] == [7, 8]
        with pytest.raises(DataError, match=r"label_column must hold whole numbers or strings; got .* in 'weight'"):
            open_images(path, "all", label_column="weight")
        with pytest.raises(DataError, match="label_column must be one of image, kind, label, weight; got 'no'"):
            open_images(path, "all", label_column="no")

    @pytest.mark.parametrize(("values", "kind"), [([0.0, 1.0], "float64"), ([False, True], "bool")])
    def test_labels_that_are_none_are_told(self, tmp_path, values, kind):
        images = open_images(self.table(tmp_path, image=[_png(1), _png(2)], label=values), "all")
        told = f"column label of {kind}: labels are whole numbers or strings, all of one type"
        assert (images.label_type, images.left_out) == (None, (told,))

    def test_labels_that_differ_between_splits_are_told(self, tmp_path):
        for name, column in (("train", {"label": [1]}), ("test", {"label": ["one"]}), ("val", {})):
            pq.write_table(pa.table({"image": [_png(1)], **column}), tmp_path / f"{name}.parquet")
        told = "column label of string, none, int64: labels are whole numbers or strings, all of one type"
        assert open_images(tmp_path, "all").left_out == (told,)

    def test_columns_of_a_folder_of_files_are_refused(self, tmp_path):
        with pytest.raises(DataError, match="image_column and label_column must be left out for image files"):
            open_images(folder(tmp_path, _=3), "all", image_column="image")

    def test_a_file_rewritten_under_its_name_and_time_is_read_anew(self, tmp_path):
        path = self.table(tmp_path, image=[_png(1), _png(2)])
        before = path.stat()
        assert self.pixels(path) == [1, 2]
        for images in ([3, 4], [5], [6, 7, 8]):
            self.table(tmp_path, image=[_png(value) for value in images])
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert self.pixels(path) == images


class TestPixels:
    def test_a_long_text_in_a_png_is_no_matter(self, tmp_path):
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("comment", "x" * 3_000_000, zip=True)
        info.add_text("more", "y" * 2_000_000)
        info.add_text("bit_depth", "many")
        draw(tmp_path / "a.png", 9, pnginfo=info)
        assert open_images(tmp_path, "all")[0][0, 0, 0] == 9

    def test_damaged_exif_turns_nothing(self, tmp_path):
        draw(tmp_path / "a.jpg", 9, size=(8, 8), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40)
        assert open_images(tmp_path, "all")[0].shape == (3, 8, 8)

    def test_sixteen_bits_of_colour_are_not_dropped_in_silence(self, tmp_path):
        import struct
        import zlib

        def chunk(name, data):
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        rows = b"".join(b"\0" + b"\x12\x34" * 3 * 8 for _ in range(8))
        header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (tmp_path / "deep.png").write_bytes(png)
        with pytest.raises(DataError, match=r"8 bits per channel.*deep.png of mode RGB with more than 8; convert"):
            open_images(tmp_path, "all")

    def test_transparent_images_need_a_background(self, tmp_path):
        Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
        with pytest.raises(DataError, match='pass background="white"'):
            open_images(tmp_path, "all")
        for colour, expected in {"white": 255, "#102030": 16}.items():
            assert open_images(tmp_path, "all", background=colour)[0][0, 0, 0] == expected
        with pytest.raises(ValueError, match=r"background must be a colour .* got 'wite'"):
            open_images(tmp_path, "all", background="wite")

    @pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "png"])
    def test_pages_and_frames_that_are_left_out_are_told(self, tmp_path, suffix):
        draw(tmp_path / "a.png", 1)
        more = [Image.new("RGB", (8, 8), (value,) * 3) for value in (100, 200)]
        draw(tmp_path / f"b.{suffix}", 2, save_all=True, append_images=more)
        images = open_images(tmp_path, "all")
        assert images.left_out == ("pages or frames behind the first in 1 of 2 images looked at",)

    def test_a_preview_behind_a_photo_is_no_page(self, tmp_path):
        preview = Image.new("RGB", (4, 4))
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
        assert open_images(tmp_path, "all").left_out == ()

    def test_formats_that_cannot_be_read_are_counted(self, tmp_path):
        folder(tmp_path, _=12)
        for name in ("a.heic", "b.heic"):
            (tmp_path / name).write_bytes(b"ftypheic")
        assert "2 of .heic, which this Pillow does not read" in what_was_taken("train", open_images(tmp_path, "train"))

    def test_what_pillow_reads_is_read(self, tmp_path):
        features = pytest.importorskip("PIL.features")
        if not features.check("jpg_2000"):
            pytest.skip("this Pillow has no JPEG 2000")
        draw(tmp_path / "a.jp2", 9)
        assert len(open_whole_images(tmp_path, "all")) == 1


def test_names_that_are_no_text_are_names(tmp_path):
    names = [b"caf\xe9.png", "naïve.png".encode(), b"\xff\xfe.png"]
    for value, name in enumerate(names):
        draw(tmp_path / "plain.png", value)
        os.rename(os.fsencode(tmp_path / "plain.png"), os.path.join(os.fsencode(tmp_path), name))
    images = open_images(tmp_path, "all")
    assert len(images) == 3
    assert {origin.id for origin in images.origins([0, 1, 2])} == {"caf\\udce9.png", "naïve.png", "\\udcff\\udcfe.png"}
    os.rename(os.path.join(os.fsencode(tmp_path), names[0]), os.path.join(os.fsencode(tmp_path), b"bad\xe9.png"))
    (tmp_path / "zero.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"skipped 1 bad images of 4: .*zero.png"):
        assert len(open_images(tmp_path, "all", on_bad_image="skip")) == 3
