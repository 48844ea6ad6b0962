"""depthq encode, decode and reconstruct: what one shows is what the others give, bit for bit."""

import re
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from depthq.cli import main
from depthq.codes.file import read_codes
from depthq.data import evaluation_loader, open_images
from depthq.pixels import image_grid, pad_to_multiple
from depthq.runs import load_model


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def read_pictures(folder):
    """The decoded images, uint8 (B, C, H, W)."""
    pixels = np.stack([read_picture(folder / name) for name in names(folder)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def read_picture(path):
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.fixture
def codes(tmp_path, trained_run):
    """A file of codes of the 36 training images."""
    path = tmp_path / "codes.parquet"
    assert main(["encode", str(trained_run), "--split", "train", "--out", str(path)]) == 0
    return path


def test_codes_decode_to_exactly_what_the_model_and_reconstruct_show(codes, trained_run, photos, tmp_path):
    assert main(["decode", str(trained_run), str(codes), "--out", str(tmp_path / "decoded")]) == 0
    decoded = read_pictures(tmp_path / "decoded")
    originals = next(iter(evaluation_loader(open_images(photos, "train"), batch_size=36)))
    model = load_model(trained_run)
    assert torch.equal(decoded, model.decode(model.encode(originals)))

    grid = tmp_path / "grid.png"
    assert main(["reconstruct", str(trained_run), "--split", "train", "--images", "10", "--out", str(grid)]) == 0
    expected = np.array(image_grid(originals[:10], decoded[:10]))
    assert np.array_equal(read_picture(grid), expected)


@pytest.mark.filterwarnings("default")  # of skipped images
def test_more_images_than_a_batch_decode_to_what_reconstruct_shows(trained_run, write_photos, tmp_path):
    data = write_photos(tmp_path / "data" / "test", count=70).parent
    write_photos(tmp_path / "data" / "train", count=1)
    (data / "test" / "003.png").write_bytes(b"no image")  # so that batches are uneven
    shared = ["--data", str(data), "--split", "test", "--on-bad-image", "skip"]
    assert main(["encode", str(trained_run), *shared, "--out", str(tmp_path / "codes.parquet")]) == 0
    assert main(["decode", str(trained_run), str(tmp_path / "codes.parquet"), "--out", str(tmp_path / "decoded")]) == 0
    decoded = read_pictures(tmp_path / "decoded" / "test")
    assert names(tmp_path / "decoded" / "test") == [f"{number:03}.png" for number in range(70) if number != 3]
    assert main(["reconstruct", str(trained_run), *shared, "--images", "69", "--out", str(tmp_path / "grid.png")]) == 0
    (data / "test" / "003.png").unlink()
    originals = read_pictures(data / "test")
    assert np.array_equal(read_picture(tmp_path / "grid.png"), np.array(image_grid(originals, decoded)))


def test_all_images_are_encoded_with_id_and_size_unless_a_split_is_named(trained_run, photos, tmp_path, capsys):
    out = tmp_path / "codes.parquet"
    assert main(["encode", str(trained_run), "--crop", "8", "--out", str(out)]) == 0
    assert f"{out}: codes of 40 of 40 images (--split all); " in capsys.readouterr().out
    (batch,) = read_codes(out)
    assert (batch.ids, batch.labels) == (names(photos), None)
    assert batch.sizes == [(8, 8)] * 40
    assert batch.codes.shapes == ((2, 1, 1), (2, 2, 2))
    assert main(["encode", str(trained_run), "--split", "test", "--out", str(tmp_path / "test.parquet")]) == 0
    assert "codes of 5 of 40 images (--split test); " in capsys.readouterr().out
    (batch,) = read_codes(tmp_path / "test.parquet")
    assert batch.ids == ["001.png", "012.png", "017.png", "033.png", "035.png"]


@pytest.fixture
def album(tmp_path):
    """A folder of images of several sizes, none of which the strides divide."""
    generator = np.random.default_rng(0)
    for name, size in (("a/wide.png", (20, 70)), ("a/wide.jpg", (20, 70)), ("tall.png", (31, 17)), ("dot.png", (1, 1))):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return tmp_path / "album"


def test_whole_images_of_any_size_come_back_under_their_names(trained_run, album, tmp_path, capsys):
    shared = [str(trained_run), "--data", str(album)]
    assert main(["encode", *shared, "--out", str(tmp_path / "codes.parquet")]) == 0
    told = capsys.readouterr().out
    assert "codes of 4 of 4 images (--split all)" in told
    assert re.search(r"bits/pixel of the first 4 images: [\d.]+ as codes, [\d.]+ as PNG, [\d.]+ as JPEG of equal", told)
    batches = list(read_codes(tmp_path / "codes.parquet"))
    known = {name: size for batch in batches for name, size in zip(batch.ids, batch.sizes, strict=True)}
    assert known == {"a/wide.jpg": (20, 70), "a/wide.png": (20, 70), "dot.png": (1, 1), "tall.png": (31, 17)}
    assert main(["decode", str(trained_run), str(tmp_path / "codes.parquet"), "--out", str(tmp_path / "again")]) == 0
    assert names(tmp_path / "again") == ["a", "dot.png", "tall.png"]
    assert names(tmp_path / "again" / "a") == ["wide.png", "wide.png.png"]  # the JPEG first
    model = load_model(trained_run)
    original = torch.from_numpy(read_picture(album / "tall.png")).permute(2, 0, 1)[None]
    padded = pad_to_multiple(original, 8)
    assert padded.shape[2:] == (32, 24)
    shown = torch.from_numpy(read_picture(tmp_path / "again" / "tall.png")).permute(2, 0, 1)
    assert torch.equal(shown, model.reconstruct(padded)[0, :, :31, :17])


@pytest.mark.filterwarnings("default")  # of skipped images
def test_skipped_images_shift_no_names(trained_run, album, tmp_path, capsys):
    (album / "a" / "wide.png").write_bytes(b"no image")
    options = ["--data", str(album), "--on-bad-image", "skip", "--out", str(tmp_path / "codes.parquet")]
    assert main(["encode", str(trained_run), *options]) == 0
    assert "codes of 3 of 4 images (--split all, 1 bad ones skipped)" in capsys.readouterr().out
    assert main(["decode", str(trained_run), str(tmp_path / "codes.parquet"), "--out", str(tmp_path / "again")]) == 0
    assert names(tmp_path / "again" / "a") == ["wide.png"]
    assert read_picture(tmp_path / "again" / "a" / "wide.png").shape == (20, 70, 3)
    assert read_picture(tmp_path / "again" / "dot.png").shape == (1, 1, 3)


def test_images_of_several_sizes_stand_beside_what_the_model_makes_of_them(trained_run, album, tmp_path, capsys):
    out = tmp_path / "pairs.png"
    assert main(["reconstruct", str(trained_run), "--data", str(album), "--split", "all", "--out", str(out)]) == 0
    assert "4 images, originals on the left" in capsys.readouterr().out
    assert read_picture(out).shape == (20 + 4 + 20 + 4 + 1 + 4 + 31, 70 + 4 + 70, 3)
    assert np.array_equal(read_picture(out)[24:44, :70], read_picture(album / "a" / "wide.png"))


def test_first_codebooks_decode_alone(codes, trained_run, tmp_path):
    assert main(["decode", str(trained_run), str(codes), "--codebooks", "1", "--out", str(tmp_path / "first")]) == 0
    (batch,) = read_codes(codes)
    assert torch.equal(read_pictures(tmp_path / "first"), load_model(trained_run).decode(batch.codes, num_codebooks=1))


def test_labels_of_a_parquet_file_are_kept(trained_run, photos, tmp_path, monkeypatch, capsys):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    cells = [{"bytes": (photos / name).read_bytes(), "path": None} for name in names(photos)[:3]]
    table = datasets.Dataset.from_dict({"picture": cells, "label": ["cat", None, "dog"]})
    table.cast_column("picture", datasets.Image()).to_parquet(str(tmp_path / "photos.parquet"))
    shared = ["--data", str(tmp_path / "photos.parquet"), "--out", str(tmp_path / "codes.parquet")]
    assert main(["encode", str(trained_run), *shared, "--limit", "2"]) == 0
    assert "codes of 2 of 3 images (--split all)" in capsys.readouterr().out
    (batch,) = read_codes(tmp_path / "codes.parquet")
    assert (batch.ids, batch.labels) == (["0", "1"], ["cat", None])


def test_labels_that_begin_late_are_kept(trained_run, photos, tmp_path, monkeypatch):
    """A whole batch has none before the first."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    cells = [{"bytes": (photos / "000.png").read_bytes(), "path": None}] * 72
    labels = [None] * 70 + ["cat", "dog"]
    table = datasets.Dataset.from_dict({"picture": cells, "label": labels})
    table.cast_column("picture", datasets.Image()).to_parquet(str(tmp_path / "photos.parquet"))
    shared = ["--data", str(tmp_path / "photos.parquet"), "--out", str(tmp_path / "codes.parquet")]
    assert main(["encode", str(trained_run), *shared]) == 0
    batches = list(read_codes(tmp_path / "codes.parquet"))
    assert len(batches) > 1
    assert [label for batch in batches for label in batch.labels] == labels


def test_gray_codes_decode_to_gray_images(tmp_path, write_photos, capsys):
    data, run = write_photos(tmp_path / "gray", channels=1), tmp_path / "run"
    assert main(["train", "--data", str(data), "--out", str(run), "--preset", "tiny", "--steps", "1"]) == 0
    assert main(["encode", str(run), "--out", str(tmp_path / "codes.parquet")]) == 0
    assert main(["decode", str(run), str(tmp_path / "codes.parquet"), "--out", str(tmp_path / "decoded")]) == 0
    for path in (tmp_path / "decoded").iterdir():
        with Image.open(path) as picture:
            assert picture.mode == "L"
    colour = write_photos(tmp_path / "colour")
    assert main(["encode", str(run), "--data", str(colour), "--out", str(tmp_path / "more.parquet")]) == 1
    message = f"images in {colour} must have at most 1 channels, as many as the model; got 3; convert them"
    assert message in capsys.readouterr().err


def test_the_extension_that_is_meant_is_meant_where_images_are_counted(trained_run, photos, tmp_path, capsys):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(3):
            tar.add(photos / f"{number:03}.png", f"{number}.png")
            tar.add(photos / "009.png", f"{number}.jpg")
    options = ["--data", str(tmp_path / "a.tar"), "--image-column", "png", "--out"]
    assert main(["encode", str(trained_run), *options, str(tmp_path / "codes.parquet")]) == 0
    assert "codes of 3 of 3 images (--split all)" in capsys.readouterr().out


def test_images_longer_than_a_jpeg_may_be_are_encoded(trained_run, tmp_path, capsys):
    (tmp_path / "long").mkdir()
    Image.new("RGB", (8, 66_000), "red").save(tmp_path / "long" / "a.png")
    options = ["--data", str(tmp_path / "long"), "--out", str(tmp_path / "codes.parquet")]
    assert main(["encode", str(trained_run), *options]) == 0
    assert "bits/pixel of 1 image: " in capsys.readouterr().out


def test_levels_decode_alone(codes, trained_run, tmp_path):
    assert main(["decode", str(trained_run), str(codes), "--levels", "[0]", "--out", str(tmp_path / "coarse")]) == 0
    (batch,) = read_codes(codes)
    assert torch.equal(read_pictures(tmp_path / "coarse"), load_model(trained_run).decode(batch.codes, levels=[0]))


def test_level_that_does_not_exist_is_refused(codes, trained_run, tmp_path, capsys):
    assert main(["decode", str(trained_run), str(codes), "--levels", "[2]", "--out", str(tmp_path / "out")]) == 1
    assert "levels must lie in [0, 2); got [2]" in capsys.readouterr().err
    assert names(tmp_path) == ["codes.parquet"]


def test_codes_of_another_model_are_refused(codes, trained_run, tmp_path, capsys):
    other = load_model(trained_run)
    with torch.no_grad():
        other.head.bias += 1
    other.save_pretrained(tmp_path / "other")
    assert main(["decode", str(tmp_path / "other"), str(codes), "--out", str(tmp_path / "out")]) == 1
    assert "must hold codes of this model" in capsys.readouterr().err
    assert names(tmp_path) == ["codes.parquet", "other"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_cut_off_codes_are_named_and_leave_nothing(codes, trained_run, tmp_path, capsys, share):
    content = codes.read_bytes()
    codes.write_bytes(content[: int(share * len(content))])
    assert main(["decode", str(trained_run), str(codes), "--out", str(tmp_path / "out")]) == 1
    assert f"{codes} must be a whole file of codes" in capsys.readouterr().err
    assert names(tmp_path) == ["codes.parquet"]


def test_codes_damaged_in_the_middle_are_named_and_leave_nothing(codes, trained_run, tmp_path, capsys):
    content = bytearray(codes.read_bytes())
    content[100:150] = bytes(50)
    codes.write_bytes(content)
    assert main(["decode", str(trained_run), str(codes), "--out", str(tmp_path / "out")]) == 1
    assert f"{codes} must be a whole file of codes" in capsys.readouterr().err
    assert names(tmp_path) == ["codes.parquet"]


@pytest.mark.parametrize("verb", ["decode", "encode", "reconstruct"])
def test_out_that_exists_is_never_overwritten(codes, trained_run, tmp_path, capsys, verb):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "work.txt").write_text("three years of work")
    for out in (precious, precious / "work.txt"):
        inputs = [str(trained_run), str(codes)] if verb == "decode" else [str(trained_run)]
        assert main([verb, *inputs, "--out", str(out)]) == 1
        assert f"{out} must not exist yet" in capsys.readouterr().err
    assert (precious / "work.txt").read_text() == "three years of work"
    assert names(tmp_path) == ["codes.parquet", "precious"]


def test_missing_codes_are_named(trained_run, tmp_path, capsys):
    assert main(["decode", str(trained_run), "nowhere.parquet", "--out", str(tmp_path / "out")]) == 1
    assert "nowhere.parquet must be a file of codes; there is none" in capsys.readouterr().err
    assert names(tmp_path) == []


@pytest.mark.parametrize("verb", ["encode", "reconstruct"])
def test_corrupt_image_on_the_way_leaves_nothing(verb, trained_run, photos, tmp_path, capsys):
    data = shutil.copytree(photos, tmp_path / "data")
    (data / "010.png").write_bytes(b"no image")
    assert main([verb, str(trained_run), "--data", str(data), "--split", "train", "--out", str(tmp_path / "out")]) == 1
    assert f"{data / '010.png'}" in capsys.readouterr().err
    assert names(tmp_path) == ["data"]


@pytest.mark.filterwarnings("default")  # of skipped images
@pytest.mark.parametrize("larger", [0, 4])  # held, or read on the way
def test_images_that_are_all_skipped_are_none(trained_run, tmp_path, capsys, larger):
    (tmp_path / "data").mkdir()
    for number in range(3):
        Image.new("RGBA", (16, 16 + number * larger)).save(tmp_path / "data" / f"{number}.png")
    options = [str(trained_run), "--data", str(tmp_path / "data"), "--split", "all", "--on-bad-image", "skip"]
    for command in (["evaluate"], ["reconstruct", "--out", str(tmp_path / "grid.png")]):
        assert main([*command, *options]) == 1
        assert "error: images must hold at least one image; got none\n" in capsys.readouterr().err
    assert names(tmp_path) == ["data"]


def test_model_without_a_quantizer_has_no_codes_but_reconstructs(tmp_path, photos, capsys):
    run = tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "1", "--quantizer", "none"]
    assert main(["train", "--data", str(photos), "--out", str(run), *options]) == 0
    assert main(["encode", str(run), "--out", str(tmp_path / "codes.parquet")]) == 1
    assert "quantizer must have codebooks for codes to exist; got 'none'" in capsys.readouterr().err
    assert main(["reconstruct", str(run), "--out", str(tmp_path / "grid.png")]) == 0
    assert names(tmp_path) == ["grid.png", "run"]
