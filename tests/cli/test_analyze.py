"""depthq analyze: what it writes, and what it refuses."""

import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from depthq.cli import main
from depthq.runs import load_model


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory, photos):
    """A run of the shared quantizer, one level."""
    run = tmp_path_factory.mktemp("runs") / "shared"
    options = ["--preset", "tiny", "--quantizer", "shared", "--codebook-size", "16", "--steps", "1"]
    assert main(["train", "--data", str(photos), "--out", str(run), *options]) == 0
    return run


@pytest.fixture(scope="module")
def analysis(tmp_path_factory, trained_run):
    """The folder that analyze makes of `trained_run`."""
    out = tmp_path_factory.mktemp("analysis") / "out"
    analyze(out, trained_run)
    return out


@pytest.fixture
def no_figures(monkeypatch):
    """For tests that look at other things: drawing takes most of the time."""
    monkeypatch.setattr("depthq.cli.analyze.draw_figures", lambda *_: {})


def analyze(out, *arguments) -> dict:
    assert main(["analyze", *map(str, arguments), "--out", str(out)]) == 0
    return json.loads(
        (out / "analysis.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )


def test_figures_carry_their_units(analysis, photos):
    content = json.loads((analysis / "analysis.json").read_text())
    assert (content["data"], content["split"]) == (str(photos), "test")
    (run,) = content["runs"]
    assert run["run"] == "trained"
    assert run["config"]["quantizer"] == "depthwise"
    assert run["images"] == 4
    assert run["codebooks"] == ["0.0", "0.1", "1.0", "1.1"]
    assert [level["grid"] for level in run["levels"]] == [[2, 2], [4, 4]]
    assert [level["positions"] for level in run["levels"]] == [4 * 4, 4 * 16]
    assert [pairs["estimator"] for pairs in run["mutual_information"]] == ["plugin", "shuffle", "miller_madow"]
    units = ("_nats", "_bits", "_share", "perplexity", "usage", "estimator", "grid", "positions", "codebook_sizes")
    assert all(key.endswith(units) for part in run["levels"] + run["mutual_information"] for key in part)


def test_nats_are_told_in_bits_too_and_mutual_information_as_a_share(analysis):
    (run,) = json.loads((analysis / "analysis.json").read_text())["runs"]
    plugin = run["mutual_information"][0]
    assert plugin["mean_pairwise_bits"] == pytest.approx(plugin["mean_pairwise_nats"] / math.log(2))
    assert plugin["total_correlation_lower_bits"] == pytest.approx(plugin["total_correlation_lower_nats"] / math.log(2))
    level = run["levels"][0]
    assert level["total_correlation_bits"] == pytest.approx(level["total_correlation_nats"] / math.log(2))
    matrix = np.array(plugin["matrix_nats"])  # of 0.0, 0.1, 1.0 and 1.1, entropy on the diagonal
    assert np.array(plugin["matrix_bits"]) == pytest.approx(matrix / math.log(2))
    shares = matrix / np.minimum.outer(matrix.diagonal(), matrix.diagonal())
    assert plugin["mean_within_level_share"] == pytest.approx([shares[0, 1], shares[2, 3]])
    assert plugin["mean_across_levels_share"] == pytest.approx(shares[:2, 2:].mean())


@pytest.mark.usefixtures("no_figures")
def test_one_codebook_shares_with_none(photos, tmp_path):
    run = tmp_path / "run"
    options = ["--preset", "tiny", "--num-codebooks", "1", "--codebook-size", "4", "--steps", "1"]
    assert main(["train", "--data", str(photos), "--out", str(run), *options]) == 0
    (found,) = analyze(tmp_path / "out", run)["runs"]
    pairs = found["mutual_information"][0]
    assert [pairs[f"mean_within_level_{unit}"] for unit in ("nats", "bits", "share")] == [[None]] * 3
    assert [pairs[f"mean_across_levels_{unit}"] for unit in ("nats", "bits", "share")] == [None] * 3


def test_entropy_is_that_of_evaluate(trained_run, analysis, capsys):
    (run,) = json.loads((analysis / "analysis.json").read_text())["runs"]
    assert main(["evaluate", str(trained_run), "--json"]) == 0
    for ours, theirs in zip(run["levels"], json.loads(capsys.readouterr().out)["levels"], strict=True):
        for name in ("entropy_bits", "perplexity", "usage"):
            assert ours[name] == pytest.approx(theirs[name])


def test_figures_are_pictures(analysis):
    pictures = sorted(path.stem for path in analysis.glob("*.png"))
    assert pictures == [
        "codebooks",
        "interpolation",
        "levels",
        "mutual_information",
        "position_entropy",
        "swap",
        "usage_level0",
        "usage_level1",
    ]
    for name in pictures:
        with Image.open(analysis / f"{name}.png") as picture:
            assert picture.convert("RGB").getcolors(maxcolors=1) is None  # what they show: tests/report


def test_the_same_command_gives_the_same_files(trained_run, analysis, tmp_path):
    analyze(tmp_path / "again", trained_run)
    for file in analysis.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


@pytest.mark.usefixtures("no_figures")
def test_two_runs_see_the_same_images(trained_run, shared_run, tmp_path, capsys):
    content = analyze(tmp_path / "out", trained_run, "--compare", shared_run, "--split", "train", "--limit", "10")
    assert [run["run"] for run in content["runs"]] == ["trained", "shared"]
    assert [run["images"] for run in content["runs"]] == [10, 10]
    table = (tmp_path / "out" / "table.txt").read_text()
    assert table.split()[:2] == ["trained", "shared"]
    assert table in capsys.readouterr().out


@pytest.mark.usefixtures("no_figures")
def test_runs_of_one_name_are_told_apart(trained_run, tmp_path):
    other = tmp_path / "other" / trained_run.name
    shutil.copytree(trained_run, other)
    content = analyze(tmp_path / "out", trained_run, "--compare", other)
    assert [run["run"] for run in content["runs"]] == [str(trained_run), str(other)]


@pytest.mark.usefixtures("no_figures")
def test_a_bare_model_needs_its_data_named(trained_run, photos, tmp_path, capsys):
    assert analyze(tmp_path / "out", trained_run / "model", "--data", photos)["data"] == str(photos)
    assert main(["analyze", str(trained_run / "model"), "--out", str(tmp_path / "no")]) == 1
    assert "--data must be given" in capsys.readouterr().err


def test_failure_leaves_nothing_behind(trained_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("depthq.cli.analyze.draw_figures", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["analyze", str(trained_run), "--out", str(tmp_path / "out")])
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(trained_run, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["analyze", str(trained_run), "--out", str(tmp_path)]) == 1
    assert "must not exist yet" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_model_without_codes_is_refused(photos, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "1", "--quantizer", "none"]
    assert main(["train", "--data", str(photos), "--out", str(run), *options]) == 0
    assert main(["analyze", str(run), "--out", str(tmp_path / "out")]) == 1
    assert f"{run} must have a quantizer; its model has none" in capsys.readouterr().err


def test_comparing_with_itself_is_a_wrong_command(trained_run, tmp_path, capsys):
    assert main(["analyze", str(trained_run), "--compare", str(trained_run), "--out", str(tmp_path / "out")]) == 2
    assert "--compare must be another model" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named(trained_run, tmp_path, capsys):
    assert main(["analyze", str(trained_run), "--compare", str(tmp_path / "gone"), "--out", str(tmp_path / "out")]) == 1
    assert "gone must be a folder with a trained model" in capsys.readouterr().err


def test_a_model_of_grey_images_cannot_be_compared_on_colour(trained_run, write_photos, tmp_path, capsys):
    grey = tmp_path / "grey"
    data = write_photos(tmp_path / "photos", channels=1)
    assert main(["train", "--data", str(data), "--out", str(grey), "--preset", "tiny", "--steps", "1"]) == 0
    assert load_model(grey).config.image_channels == 1
    assert main(["analyze", str(trained_run), "--compare", str(grey), "--out", str(tmp_path / "out")]) == 1
    assert f"{grey} must take images of 3 channels, as {trained_run} does; its model takes 1" in capsys.readouterr().err
    assert main(["analyze", str(grey), "--compare", str(trained_run), "--out", str(tmp_path / "out")]) == 1
    assert f"{trained_run} must take images of 1 channels, as {grey} does; its model takes 3" in capsys.readouterr().err
