"""depthq compress and decompress: images to one file, and back under their names."""

import json
import shutil

import datasets
import numpy as np
import pytest
from PIL import Image

from depthq.cli import main

without_a_prior = pytest.mark.filterwarnings("ignore:.*has no prior")


@pytest.fixture
def mixed(photos, tmp_path):
    """A folder of images of two sizes, one of them in a folder of its own."""
    folder = tmp_path / "mixed"
    (folder / "inner").mkdir(parents=True)
    for number, path in enumerate(sorted(photos.glob("*.png"))[:3]):
        with Image.open(path) as picture:
            size = (16, 16) if number else (21, 9)
            picture.resize(size).save(folder / ("inner" if number == 2 else ".") / f"{number}.png")
    return folder


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@without_a_prior
def test_folder_comes_back_pixel_by_pixel_under_its_names(trained_run, mixed, tmp_path, capsys):
    file, out = tmp_path / "photos.dq", tmp_path / "out"
    assert main(["compress", str(trained_run), str(mixed), "--lossless", "--out", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"files", "images", "bytes", "bits_per_dim", "seconds", "verified"}
    assert (told["files"], told["images"], told["verified"]) == (1, 3, True)
    assert told["bytes"] == file.stat().st_size
    assert told["bits_per_dim"] == pytest.approx(8 * told["bytes"] / (3 * (2 * 256 + 189)))
    assert main(["decompress", str(trained_run), str(file), "--out", str(out)]) == 0
    assert sorted(path.relative_to(out) for path in out.rglob("*.png")) == sorted(
        path.relative_to(mixed) for path in mixed.rglob("*.png")
    )
    for path in mixed.rglob("*.png"):
        assert np.array_equal(pixels(path), pixels(out / path.relative_to(mixed)))


@without_a_prior
def test_preview_and_lossy_files_show_the_same(trained_run, mixed, tmp_path, capsys):
    for name, options in (("lossy", []), ("lossless", ["--lossless"])):
        file = str(tmp_path / f"{name}.dq")
        capsys.readouterr()
        assert main(["compress", str(trained_run), str(mixed), *options, "--out", file, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["verified"] == (True if options else None)
        out = str(tmp_path / name)
        assert main(["decompress", str(trained_run), file, "--preview", "--out", out]) == 0
    for path in mixed.rglob("*.png"):
        shown = [pixels(tmp_path / name / path.relative_to(mixed)) for name in ("lossy", "lossless")]
        assert np.array_equal(*shown)
    assert (tmp_path / "lossy.dq").stat().st_size < (tmp_path / "lossless.dq").stat().st_size


@pytest.mark.filterwarnings("always")
def test_run_without_a_prior_says_so_and_a_prior_makes_files_smaller(trained_run, photos, tmp_path, capsys):
    run = shutil.copytree(trained_run, tmp_path / "run")
    assert main(["compress", str(run), str(photos), "--out", str(tmp_path / "uniform.dq")]) == 0
    assert "has no prior: its codes cost what all alike do" in capsys.readouterr().err
    options = "--width 16 --num-heads 2 --num-layers 1 --steps 30 --warmup-steps 2 --precision 32-true"
    assert main(["prior", str(run), *options.split()]) == 0
    assert main(["compress", str(run), str(photos), "--out", str(tmp_path / "prior.dq")]) == 0
    assert (tmp_path / "prior.dq").stat().st_size < (tmp_path / "uniform.dq").stat().st_size
    capsys.readouterr()
    assert main(["decompress", str(run), str(tmp_path / "uniform.dq"), "--out", str(tmp_path / "out")]) == 1
    assert "must be of this model and prior" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@without_a_prior
def test_one_image_has_a_short_header_and_rows_of_parquet_are_numbered(trained_run, photos, tmp_path):
    paths = sorted(photos.glob("*.png"))[:2]
    rows = datasets.Dataset.from_dict({"image": [{"bytes": path.read_bytes(), "path": None} for path in paths]})
    rows.cast_column("image", datasets.Image()).to_parquet(tmp_path / "rows.parquet")
    for name, source in (("one", paths[0]), ("rows", tmp_path / "rows.parquet")):
        file = str(tmp_path / f"{name}.dq")
        assert main(["compress", str(trained_run), str(source), "--lossless", "--out", file]) == 0
        assert main(["decompress", str(trained_run), file, "--out", str(tmp_path / name)]) == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["one.png"]
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["00000000.png", "00000001.png"]
    assert np.array_equal(pixels(tmp_path / "rows" / "00000001.png"), pixels(paths[1]))


@without_a_prior
def test_bad_input_is_named_and_leaves_nothing(trained_run, photos, tmp_path, capsys):
    l2, out = tmp_path / "l2", tmp_path / "out"
    assert main(["train", "--data", str(photos), "--out", str(l2), "--preset", "tiny", "--steps", "1"]) == 0
    (tmp_path / "bad.dq").write_bytes(b"no file of ours")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    photo, run = str(sorted(photos.glob("*.png"))[0]), str(trained_run)
    for arguments, message in [
        (["compress", str(l2), photo, "--lossless"], "lossless must be asked of a model whose likelihood"),
        (["compress", run, str(tmp_path / "nowhere")], "there is nothing at"),
        (["compress", run, str(tmp_path / "bad.png")], "bad.png"),
        (["compress", run, photo, photo], "must have different names"),
        (["decompress", run, str(tmp_path / "nowhere.dq")], "there is none"),
        (["decompress", run, str(tmp_path / "bad.dq")], "got something else"),
    ]:
        capsys.readouterr()
        assert main([*arguments, "--out", str(out)]) == 1
        assert message in capsys.readouterr().err
        assert not out.exists()


@without_a_prior
@pytest.mark.filterwarnings("default")
def test_pages_behind_the_first_are_told(trained_run, photos, tmp_path, capsys):
    with Image.open(photos / "000.png") as first, Image.open(photos / "001.png") as second:
        first.save(tmp_path / "scan.tiff", save_all=True, append_images=[second])
    file = tmp_path / "scan.dq"
    assert main(["compress", str(trained_run), str(tmp_path / "scan.tiff"), "--lossless", "--out", str(file)]) == 0
    told = capsys.readouterr().err
    assert f"left out pages or frames behind the first in 1 of 1 images: {tmp_path / 'scan.tiff'}" in told
    assert main(["decompress", str(trained_run), str(file), "--out", str(tmp_path / "again")]) == 0
    (again,) = (tmp_path / "again").iterdir()
    assert np.array_equal(pixels(again), pixels(photos / "000.png"))


@without_a_prior
@pytest.mark.filterwarnings("default")  # of skipped images
def test_transparent_and_bad_images_are_taken_as_the_errors_say(trained_run, photos, tmp_path, capsys):
    album, run = tmp_path / "album", str(trained_run)
    album.mkdir()
    Image.new("RGBA", (16, 16), (10, 20, 30, 0)).save(album / "clear.png")
    command = ["compress", run, str(album), "--lossless", "--out", str(tmp_path / "album.dq")]
    assert main(command) == 1
    assert "or pass --background white" in capsys.readouterr().err
    (album / "bad.png").write_bytes(b"no picture")
    assert main([*command, "--background", "white"]) == 1
    assert "or pass --on-bad-image skip" in capsys.readouterr().err
    assert main([*command, "--background", "white", "--on-bad-image", "skip"]) == 0
    assert "skipped 1 bad images of 2" in capsys.readouterr().err
    assert main(["decompress", run, str(tmp_path / "album.dq"), "--out", str(tmp_path / "out")]) == 0
    (only,) = (tmp_path / "out").iterdir()
    assert (pixels(only) == 255).all()


@without_a_prior
def test_a_column_of_images_can_be_named(trained_run, photos, tmp_path, capsys):
    content = [{"bytes": path.read_bytes(), "path": None} for path in sorted(photos.glob("*.png"))[:4]]
    rows = datasets.Dataset.from_dict({"left": content[:2], "right": content[2:]})
    for column in ("left", "right"):
        rows = rows.cast_column(column, datasets.Image())
    rows.to_parquet(tmp_path / "two.parquet")
    command = ["compress", str(trained_run), str(tmp_path / "two.parquet"), "--out", str(tmp_path / "two.dq")]
    assert main(command) == 1
    assert "pass an --image-column" in capsys.readouterr().err
    assert main([*command, "--image-column", "right"]) == 0
    photo = ["compress", str(trained_run), str(sorted(photos.glob("*.png"))[0]), "--out", str(tmp_path / "photo.dq")]
    assert main([*photo, "--image-column", "right"]) == 1
    assert "--image-column must come with a parquet or tar file" in capsys.readouterr().err


@without_a_prior
def test_names_never_lead_out_of_the_folder(trained_run, tmp_path, capsys):
    from depthq.coding import Archive
    from depthq.runs import load_model
    from tests.coding.conftest import smooth_images

    data = Archive(load_model(trained_run)).compress([smooth_images(2, 3, 16)], ["fine.png", "../out.png"])
    (tmp_path / "evil.dq").write_bytes(data)
    assert main(["decompress", str(trained_run), str(tmp_path / "evil.dq"), "--out", str(tmp_path / "a" / "b")]) == 1
    assert "must lie within a folder; got '../out.png'" in capsys.readouterr().err
    assert not (tmp_path / "a" / "out.png").exists()
