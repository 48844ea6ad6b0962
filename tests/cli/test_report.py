"""depthq report: one page, in the run's own folder."""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from depthq.cli import main


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "demo")


def test_a_run_gets_its_page(run, photos, capsys):
    assert main(["report", str(run)]) == 0
    assert f"{run / 'report.html'}: 5 images" in capsys.readouterr().out
    page = " ".join((run / "report.html").read_text().split())
    assert "<h1>demo</h1>" in page
    assert f"10 of 10 steps of 8 images from {photos.name}" in page


def test_what_a_run_began_with_is_named_without_its_place(photos, tmp_path):
    tiny = ["train", "--data", str(photos), "--preset", "tiny", "--steps", "1"]
    first, run = tmp_path / "first", tmp_path / "run"
    assert main([*tiny, "--out", str(first)]) == 0
    assert main([*tiny, "--out", str(run), "--start-from", str(first)]) == 0
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "<dt>started_from</dt><dd>first</dd>" in re.sub(r"\s*(<[^>]*>)\s*", r"\1", page)
    assert str(tmp_path) not in page


def test_its_headline_is_that_of_evaluate(run, capsys):
    assert main(["report", str(run)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    total = json.loads(capsys.readouterr().out)["total_bits_per_dim"]
    first = re.search(r'<span class="number">([\d.]+)</span> (\S+)<small>', (run / "report.html").read_text())
    assert first is not None
    assert first.groups() == (f"{total:.3f}", "bits/dim")


def test_other_images_can_be_measured(run, photos, write_photos, tmp_path):
    other = write_photos(tmp_path / "others", count=100, seed=1)
    assert main(["report", str(run), "--data", str(other), "--split", "train", "--limit", "7"]) == 0
    page = " ".join((run / "report.html").read_text().split())
    assert "Measured on 7 images of the train split of others, whole" in page


@pytest.mark.parametrize("named", ["photos", "photos/"])
def test_the_own_data_are_known_however_they_are_named(write_photos, tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    data = write_photos(tmp_path / "photos", size=32)
    Image.new("RGB", (32, 48)).save(data / "wide.png")  # so that crops must be known from the run
    options = ["--preset", "tiny", "--steps", "1", "--image-size", "16"]
    assert main(["train", "--data", "photos", "--out", "run", *options]) == 0
    assert main(["report", "run", "--data", named]) == 0


def train_prior(run, *options):
    small = ["--width", "16", "--num-heads", "2", "--num-layers", "1", "--steps", "1", "--warmup-steps", "1"]
    assert main(["prior", str(run), *small, *options]) == 0


def test_samples_lie_beside_the_own_training_images_whatever_is_measured(run, write_photos, tmp_path):
    train_prior(run)
    photos = [photo.read_bytes() for photo in sorted(write_photos(tmp_path / "others", size=32, seed=1).iterdir())]
    pq.write_table(pa.table({"photo": photos, "mask": photos[::-1]}), tmp_path / "two.parquet")
    options = ["--image-column", "photo", "--crop", "24", "--background", "white"]
    assert main(["report", str(run), "--data", str(tmp_path / "two.parquet"), *options]) == 0
    page = " ".join((run / "report.html").read_text().split())
    assert "Measured on" in page
    assert "of two.parquet" in page
    assert "below each the nearest of 35 training images, by squared error. A prior that knows" in page


def test_samples_lie_beside_crops_of_the_size_that_the_prior_was_trained_on(run, write_photos, tmp_path):
    large = write_photos(tmp_path / "large", size=32)
    train_prior(run, "--data", str(large), "--crop", "8")
    assert main(["report", str(run), "--data", str(large), "--crop", "24"]) == 0
    assert "the nearest of 35 training images" in " ".join((run / "report.html").read_text().split())


def test_a_prior_of_larger_images_than_the_own_asks_for_its_data(run, write_photos, tmp_path, capsys):
    large = write_photos(tmp_path / "large", size=32)
    train_prior(run, "--data", str(large), "--crop", "24")
    assert main(["report", str(run)]) == 1
    error = capsys.readouterr().err
    assert "samples must lie beside training images of the prior's size; got: images must be at least" in error
    assert "name its data with --data" in error


@pytest.mark.filterwarnings("default")
def test_test_images_that_were_trained_on_are_told_of(run, photos, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved / "test")
    (moved / "train").mkdir()
    shutil.copy(photos / "001.png", moved / "train")
    assert main(["report", str(run), "--data", str(moved)]) == 0
    assert "was trained on 35 of these 40 images: the figures flatter it" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")  # of the images for training
def test_a_run_with_a_prior_whose_data_have_moved_gets_its_page(run, photos, write_photos, tmp_path, capsys):
    train_prior(run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(photos), str(tmp_path / "gone")))
    capsys.readouterr()
    assert main(["report", str(run)]) == 1
    assert "gone" in capsys.readouterr().err
    moved = write_photos(tmp_path / "moved")
    assert main(["report", str(run), "--data", str(moved)]) == 0
    assert f"samples are shown beside the images for training in {moved}" in capsys.readouterr().err
    page = " ".join((run / "report.html").read_text().split())
    assert "images for training in moved, by squared error: the data that the run was trained on could not" in page
    assert "nearest training images" not in page


def test_a_model_without_codes_has_a_page_too(photos, tmp_path):
    run = tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "1", "--quantizer", "none"]
    assert main(["train", "--data", str(photos), "--out", str(run), *options]) == 0
    assert main(["report", str(run)]) == 0
    assert "no quantizer" in (run / "report.html").read_text()


def test_grey_images_have_a_page_too(write_photos, tmp_path):
    data, run = write_photos(tmp_path / "photos", channels=1), tmp_path / "run"
    assert main(["train", "--data", str(data), "--out", str(run), "--preset", "tiny", "--steps", "1"]) == 0
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").is_file()


def test_a_bare_model_is_refused(run, photos, capsys):
    assert main(["report", str(run / "model"), "--data", str(photos)]) == 1
    assert "must be a run of depthq train" in capsys.readouterr().err
    assert not (run / "model" / "report.html").exists()


def test_damaged_metrics_are_named(run, capsys):
    metrics = run / "metrics.jsonl"
    metrics.write_text("no json\n" + metrics.read_text())
    assert main(["report", str(run)]) == 1
    assert "metrics.jsonl must hold one JSON object per line" in capsys.readouterr().err
