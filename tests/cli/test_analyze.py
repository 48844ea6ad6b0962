"""depthq analyze: what it writes, and what it refuses."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from depthq.cli import main
from depthq.codes import Codes
from depthq.codes.file import write_codes
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
def no_pictures(monkeypatch):
    """For tests that look at other things: drawing takes most of the time."""
    for draw in ("draw_plots", "draw_pictures"):
        monkeypatch.setattr(f"depthq.report.{draw}", lambda *_: {})


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
    assert run["images"] == 5
    assert run["codebooks"] == ["0.0", "0.1", "1.0", "1.1"]
    assert [level["grid"] for level in run["levels"]] == [[2, 2], [4, 4]]
    assert [level["positions"] for level in run["levels"]] == [5 * 4, 5 * 16]
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


@pytest.mark.usefixtures("no_pictures")
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
        "prefixes",
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


@pytest.mark.usefixtures("no_pictures")
def test_two_runs_see_the_same_images(trained_run, shared_run, tmp_path, capsys):
    content = analyze(tmp_path / "out", trained_run, "--compare", shared_run, "--split", "train", "--limit", "10")
    assert [run["run"] for run in content["runs"]] == ["trained", "shared"]
    assert [run["images"] for run in content["runs"]] == [10, 10]
    table = (tmp_path / "out" / "table.txt").read_text()
    assert table.split()[:2] == ["trained", "shared"]
    assert table in capsys.readouterr().out


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("ignore:.*was trained on")
def test_a_shipped_model_can_be_the_other(tmp_path):
    content = analyze(
        tmp_path / "out", "photos-small", "--compare", "cifar10-lossless", "--data", "bundled", "--crop", "32"
    )
    assert [run["run"] for run in content["runs"]] == ["photos-small", "cifar10-lossless"]


@pytest.mark.usefixtures("no_pictures")
def test_runs_of_one_name_are_told_apart(trained_run, tmp_path):
    other = tmp_path / "other" / trained_run.name
    shutil.copytree(trained_run, other)
    content = analyze(tmp_path / "out", trained_run, "--compare", other)
    assert [run["run"] for run in content["runs"]] == [str(trained_run), str(other)]


@pytest.mark.usefixtures("no_pictures")
def test_a_bare_model_needs_its_data_named(trained_run, photos, tmp_path, capsys):
    assert analyze(tmp_path / "out", trained_run / "model", "--data", photos)["data"] == str(photos)
    assert main(["analyze", str(trained_run / "model"), "--out", str(tmp_path / "no")]) == 1
    assert "--data must be given" in capsys.readouterr().err


def test_failure_leaves_nothing_behind(trained_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("depthq.report.draw_plots", lambda *_: 1 / 0)
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


def test_a_model_of_larger_stride_is_refused_before_images_are_counted(shared_run, photos, tmp_path, capsys):
    coarse = tmp_path / "coarse"
    options = ["--preset", "tiny", "--channels", "[4,4,4,4]", "--steps", "1"]
    assert main(["train", "--data", str(photos), "--out", str(coarse), *options]) == 0
    command = ["analyze", str(shared_run), "--compare", str(coarse), "--out", str(tmp_path / "out")]
    assert main([*command, "--crop", "8"]) == 1
    message = "--crop must be a multiple of the strides of both models' coarsest levels, 4 and 16; got images of 8"
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("default")
def test_test_images_that_were_trained_on_are_told_of(trained_run, shared_run, photos, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved / "test")
    (moved / "train").mkdir()
    shutil.copy(photos / "001.png", moved / "train")
    analyze(tmp_path / "out", trained_run, "--compare", shared_run, "--data", moved)
    error = capsys.readouterr().err
    for run in (trained_run, shared_run):
        assert f"{run} was trained on 35 of these 40 images: the figures flatter it" in error


@pytest.fixture
def array(tmp_path):
    """Save an array, by default 300 images of 3 codebooks of 16 codes at 4 x 5 positions; returns its file."""

    def save(codes=None):
        path = tmp_path / "codes.npy"
        np.save(path, np.random.default_rng(0).integers(0, 16, (300, 3, 4, 5)) if codes is None else codes)
        return path

    return save


def test_codes_that_no_depthq_model_made_are_analysed_and_drawn(array, tmp_path, capsys):
    content = analyze(tmp_path / "out", array(), "--codebook-size", "16")
    assert (content["data"], content["split"]) == (str(tmp_path / "codes.npy"), None)
    (run,) = content["runs"]
    assert (run["run"], run["config"], run["images"]) == ("codes.npy", None, 300)
    assert run["levels"][0]["grid"] == [4, 5]
    assert run["levels"][0]["mean_entropy_bits"] == pytest.approx(4, abs=0.01)
    assert run["mutual_information"][1]["mean_within_level_nats"] == [pytest.approx(0, abs=0.01)]
    pictures = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {"codebooks", "mutual_information", "position_entropy", "usage_level0"}
    table = (tmp_path / "out" / "table.txt").read_text()
    assert table in capsys.readouterr().out
    assert table.split()[0] == "codes.npy"


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("shape", "grid"), [((300, 3), []), ((300, 3, 5), [5]), ((300, 3, 2, 4, 5), [2, 4, 5])])
def test_codes_may_be_rows_sequences_or_video_of_codebooks_of_any_size(array, tmp_path, shape, grid):
    sizes = (4, 2, 8)
    codes = np.stack([np.random.default_rng(size).integers(0, size, (shape[0], *shape[2:])) for size in sizes], axis=1)
    (run,) = analyze(tmp_path / "out", array(codes.astype(np.uint8)), "--codebook-size", *sizes, "--limit", 250)["runs"]
    assert (run["images"], run["levels"][0]["grid"]) == (250, grid)
    assert run["levels"][0]["codebook_sizes"] == list(sizes)
    assert run["levels"][0]["entropy_bits"] == pytest.approx([2, 1, 3], abs=0.1)


@pytest.mark.usefixtures("no_pictures")
def test_a_file_of_codes_says_as_much_as_the_run_that_made_it(trained_run, tmp_path):
    path = tmp_path / "codes.parquet"
    assert main(["encode", str(trained_run), "--split", "train", "--out", str(path)]) == 0
    (theirs,) = analyze(tmp_path / "run", trained_run, "--split", "train", "--limit", "30")["runs"]
    (ours,) = analyze(tmp_path / "file", path, "--limit", "30")["runs"]
    assert ours["measurement"] is None
    assert theirs["measurement"]["images"] == 30
    of_the_run = dict.fromkeys(("run", "config", "measurement", "prefixes"))
    assert ours | of_the_run == theirs | of_the_run


@pytest.mark.usefixtures("no_pictures")
def test_codes_of_whole_photos_of_two_sizes_are_analysed_as_crops(trained_run, write_photos, tmp_path, capsys):
    data = write_photos(tmp_path / "photos", count=4, size=16)
    for number, photo in enumerate(write_photos(tmp_path / "large", count=4, size=32).iterdir(), start=4):
        shutil.copy(photo, data / f"{number:03d}.png")
    encode = ["encode", str(trained_run), "--data", str(data), "--out"]
    assert main([*encode, str(tmp_path / "whole.parquet")]) == 0
    assert main(["analyze", str(tmp_path / "whole.parquet"), "--out", str(tmp_path / "no")]) == 1
    error = capsys.readouterr().err
    assert "must hold codes of images of one size" in error
    assert "encode crops, with depthq encode --crop SIZE" in error
    assert main([*encode, str(tmp_path / "crops.parquet"), "--crop", "16"]) == 0
    assert analyze(tmp_path / "out", tmp_path / "crops.parquet")["runs"][0]["images"] == 8


def test_prefixes_cost_more_and_more_up_to_all_codes(analysis, trained_run, capsys):
    (run,) = json.loads((analysis / "analysis.json").read_text())["runs"]
    assert [(prefix["levels"], prefix["codebooks"]) for prefix in run["prefixes"]] == [(1, 2), (2, 1), (2, 2)]
    costs = [prefix["code_bits_per_pixel"] for prefix in run["prefixes"]]
    sizes = [level["codebook_sizes"] for level in run["levels"]]
    of_level = [sum(map(math.log2, of)) / 4 ** (3 - index) for index, of in enumerate(sizes)]  # grids of 1/8 and 1/4
    assert costs == pytest.approx([of_level[0], sum(of_level) / 2, sum(of_level)])
    assert main(["evaluate", str(trained_run), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert run["prefixes"][-1]["code_bits_per_pixel"] == pytest.approx(whole["code_bits_per_pixel"])


@pytest.mark.usefixtures("no_pictures")
def test_sizes_told_of_a_file_of_codes_must_be_its_own(tmp_path, capsys):
    path = tmp_path / "codes.parquet"
    write_codes(path, [Codes((torch.zeros(9, 2, 3, dtype=torch.int64),), ((8, 8),))], model_fingerprint=None)
    for sizes in (["8"], ["8", "8"]):
        analyze(tmp_path / "-".join(sizes), path, "--codebook-size", *sizes)
    assert main(["analyze", str(path), "--codebook-size", "9", "--out", str(tmp_path / "no")]) == 1
    assert f"--codebook-size must be what {path} says, ((8, 8),); got [9]; leave it out" in capsys.readouterr().err


def test_pairs_that_would_not_fit_in_memory_are_left_out_and_said_to_be(array, tmp_path, capsys):
    codes = np.random.default_rng(0).integers(0, 65_536, (2000, 2))
    (run,) = analyze(tmp_path / "out", array(codes), "--codebook-size", "65536")["runs"]
    assert run["levels"][0]["mean_entropy_nats"] > 7
    for pairs in run["mutual_information"]:
        assert pairs["matrix_nats"] is pairs["matrix_bits"] is pairs["mean_pairwise_nats"] is None
        assert pairs["mean_within_level_share"] == [None]
    out = capsys.readouterr().out
    assert "note on codes.npy: mutual information and total correlation are left out" in out
    (row,) = (line for line in out.splitlines() if line.startswith("level 0: mean MI, bits, plug-in"))
    assert row.split()[-1] == "-"
    pictures = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {"codebooks", "usage_level0"}


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        (np.zeros((9, 2)), ["--codebook-size", "4"], r"must hold integers .* got float64 (9, 2); save the codes so"),
        (np.zeros(9, dtype=int), ["--codebook-size", "4"], "must hold integers (N, M) or (B, M, *positions)"),
        (np.zeros((0, 2), dtype=int), ["--codebook-size", "4"], "must hold integers"),
        (np.array([{}, []], dtype=object), ["--codebook-size", "4"], "must be a whole .npy array of integers; got: "),
        (np.zeros((9, 2), dtype=int), [], "--codebook-size must be given: "),
        (np.zeros((9, 2), dtype=int), ["--codebook-size", "4", "4", "4"], "one for each of the 2 codebooks on axis 1"),
        (
            np.full((9, 2), 4),
            ["--codebook-size", "4"],
            "codebook 0 must lie in [0, 4); got 4; were they made by another",
        ),
        (np.full((9, 2), -1), ["--codebook-size", "4"], "codebook 0 must lie in [0, 4); got -1; -1 marks a masked"),
    ],
)
def test_arrays_that_are_no_codes_get_one_line(array, tmp_path, capsys, codes, options, message):
    path = array(codes)
    assert main(["analyze", str(path), *options, "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    for part in message.split(" .* "):
        assert part in line
    assert [path.name for path in tmp_path.iterdir()] == ["codes.npy"]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_cut_off_array_is_named(array, tmp_path, capsys, share):
    path = array()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert main(["analyze", str(path), "--codebook-size", "16", "--out", str(tmp_path / "out")]) == 1
    assert f"{path} must be a whole .npy array of integers; got: " in capsys.readouterr().err


def test_files_that_are_neither_and_none_at_all_are_named(tmp_path, capsys):
    notes, gone, damaged = (tmp_path / name for name in ("notes.txt", "gone.npy", "damaged.parquet"))
    notes.write_text("notes")
    damaged.write_bytes(b"PAR1, and no more")
    for path, message in (
        (notes, "must be a file of depthq encode or an integer .npy array; got neither"),
        (gone, "must be a file of codes; there is none"),
        (damaged, "must be a whole file of codes"),
    ):
        assert main(["analyze", str(path), "--codebook-size", "4", "--out", str(tmp_path / "out")]) == 1
        assert f"{path} {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--compare", "run"],
        ["--data", "photos"],
        ["--split", "test"],
        ["--crop", "8"],
        ["--on-bad-image", "skip"],
        ["--background", "white"],
        ["--image-column", "photo"],
    ],
)
def test_options_of_a_model_are_a_wrong_command_for_codes(array, tmp_path, capsys, options):
    assert main(["analyze", str(array()), "--codebook-size", "16", *options, "--out", str(tmp_path / "out")]) == 2
    assert f"{options[0]} must come with a model; got codes in {tmp_path / 'codes.npy'}" in capsys.readouterr().err


def test_sizes_are_a_wrong_command_for_a_model(trained_run, tmp_path, capsys):
    assert main(["analyze", str(trained_run), "--codebook-size", "16", "--out", str(tmp_path / "out")]) == 2
    assert f"--codebook-size must come with a file of codes; got {trained_run}" in capsys.readouterr().err


@pytest.mark.parametrize(("path", "found"), [("photos", "a folder that is neither"), ("gone", "nothing there")])
def test_what_is_neither_a_model_nor_codes_is_a_wrong_command_with_sizes(path, found, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    assert main(["analyze", str(tmp_path / path), "--codebook-size", "16", "--out", str(tmp_path / "out")]) == 2
    message = f"{tmp_path / path} must be a model or a file of codes; got {found}; check the path"
    assert message in capsys.readouterr().err


def test_comparing_with_a_file_of_codes_is_a_wrong_command(trained_run, array, tmp_path, capsys):
    codes = array()
    assert main(["analyze", str(trained_run), "--compare", str(codes), "--out", str(tmp_path / "out")]) == 2
    message = f"--compare must be another model; got the file {codes}; analyze it by itself"
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("sizes", [["16"], ["16", "16", "16"]])
def test_sizes_may_stand_before_the_file(array, tmp_path, sizes):
    out = tmp_path / "out"
    assert main(["analyze", "--codebook-size", *sizes, str(array()), "--limit", "20", "--out", str(out)]) == 0
    (run,) = json.loads((out / "analysis.json").read_text())["runs"]
    assert (run["images"], run["levels"][0]["codebook_sizes"]) == (20, [16, 16, 16])


@pytest.mark.parametrize("sizes", [["--codebook-size", "many"], ["--codebook-size", "0"], ["--codebook-size"]])
def test_sizes_that_are_none_are_a_wrong_command(array, tmp_path, capsys, sizes):
    assert main(["analyze", str(array()), *sizes, "--out", str(tmp_path / "out")]) == 2
    assert re.search("codebook.size", capsys.readouterr().err)
