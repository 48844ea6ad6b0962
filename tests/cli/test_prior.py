"""depthq prior and depthq sample: from codes to images that nobody took."""

import json
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import yaml
from PIL import Image

from depthq import DQAE, CodePrior, DQAEConfig
from depthq.cli import main
from depthq.codes import Codes
from depthq.codes.file import read_codes, read_header, write_codes
from depthq.runs import load_prior, read_metrics
from depthq.training.prior import PriorTraining
from depthq.weights import shipped_folder

OPTIONS = "--width 16 --num-heads 2 --num-layers 1 --steps 12 --validate-every 4 --checkpoint-every 4 --log-every 4"
SMALL = [*OPTIONS.split(), "--warmup-steps", "2", "--precision", "32-true"]


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    """A run with a prior: two levels of two codebooks, K = 8 and 16."""
    run = tmp_path_factory.mktemp("priors") / "run"
    shutil.copytree(trained_run, run)
    assert main(["prior", str(run), *SMALL]) == 0
    return run


@pytest.fixture
def bare(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "bare")


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_prior_lies_beside_the_model_and_is_told_against_uniform_and_counted(bare, capsys):
    assert main(["prior", str(bare), *SMALL]) == 0
    told = capsys.readouterr().out
    for name in ("3 held-out images", "uniform", "counted, given left", "bits/position", "saved"):
        assert name in told
    prior = load_prior(bare)
    assert isinstance(prior, CodePrior)
    assert prior.codebook_sizes == ((8, 8), (16, 16))
    assert prior.grids == ((2, 2), (4, 4))
    rows = [json.loads(row) for row in (bare / "prior" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation_bits_per_code" in row] == [4, 8, 12]


def test_evaluate_tells_what_codes_cost_under_the_prior(run, capsys):
    assert main(["evaluate", str(run), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    saved = metrics["code_bits_per_dim"] - metrics["prior_bits_per_dim"]
    assert saved > 0
    assert metrics["total_bits_per_dim_with_prior"] == pytest.approx(metrics["total_bits_per_dim"] - saved)


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("is_of_earlier_version", [False, True])  # whose codes do not say of which images they are
def test_resumed_prior_ends_as_one_that_was_not_killed(bare, run, monkeypatch, is_of_earlier_version):
    original = PriorTraining.training_step

    def training_step(self, levels, index):
        if self.global_step == 6:
            raise KilledError
        return original(self, levels, index)

    monkeypatch.setattr(PriorTraining, "training_step", training_step)
    with pytest.raises(KilledError):
        main(["prior", str(bare), *SMALL])
    monkeypatch.undo()
    if is_of_earlier_version:
        path = bare / "prior" / "codes.parquet"
        codes = Codes.cat(batch.codes for batch in read_codes(path))
        write_codes(path, [codes], model_fingerprint=read_header(path).model_fingerprint)
    assert main(["prior", str(bare), *SMALL, "--resume"]) == 0
    for name in ("model.safetensors", "config.json", "config.yaml"):
        assert (bare / "prior" / name).read_bytes() == (run / "prior" / name).read_bytes()


OVERFITS = [*SMALL, "--steps", "399", "--learning-rate", "0.05", "--patience", "2"]


def validations(run):
    """The steps of all validations, and what they gave."""
    rows = read_metrics(run / "prior" / "metrics.jsonl")
    return [(row["step"], row["validation_bits_per_code"]) for row in rows if "validation_bits_per_code" in row]


def test_overfitting_is_told_and_stops_training(bare, capsys):
    assert main(["prior", str(bare), *OVERFITS]) == 0
    out, err = capsys.readouterr()
    assert "began to know images by heart" in out
    steps, costs = zip(*validations(bare), strict=True)
    assert steps == tuple(range(4, steps[-1] + 1, 4))  # the last one, too, validated once
    assert err.count(f"step {steps[-1]}: held-out images cost more") == 1
    assert len(costs) < 100
    assert min(costs) == costs[-3]


def test_a_prior_that_stopped_early_is_trained_no_more(bare, capsys):
    assert main(["prior", str(bare), *OVERFITS]) == 0
    before, told = validations(bare), capsys.readouterr().out
    for _ in range(2):
        assert main(["prior", str(bare), *OVERFITS, "--resume"]) == 0
        assert validations(bare) == before
        assert capsys.readouterr().out == told


def test_a_prior_killed_as_it_stopped_early_ends_as_one_that_was_not_killed(bare, trained_run, tmp_path, monkeypatch):
    other = shutil.copytree(trained_run, tmp_path / "other")
    assert main(["prior", str(other), *OVERFITS]) == 0

    def on_train_end(self):
        raise KilledError

    monkeypatch.setattr(PriorTraining, "on_train_end", on_train_end)
    with pytest.raises(KilledError):
        main(["prior", str(bare), *OVERFITS])
    monkeypatch.undo()
    assert main(["prior", str(bare), *OVERFITS, "--resume"]) == 0
    assert validations(bare) == validations(other)
    ours, theirs = (run / "prior" for run in (bare, other))
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert [path.name for path in (ours / "checkpoints").iterdir()] == [
        path.name for path in (theirs / "checkpoints").iterdir()
    ]


def test_codes_are_encoded_once(run, bare):
    shutil.copytree(run / "prior", bare / "prior", ignore=lambda folder, names: set(names) - {"codes.parquet"})
    before = (bare / "prior" / "codes.parquet").stat().st_mtime_ns
    assert main(["prior", str(bare), *SMALL]) == 0
    assert (bare / "prior" / "codes.parquet").stat().st_mtime_ns == before


def test_codes_of_other_images_or_damaged_ones_are_encoded_anew_and_never_gone_on_with(run, bare, write_photos, capsys):
    codes = bare / "prior" / "codes.parquet"
    shutil.copytree(run / "prior", bare / "prior", ignore=lambda folder, names: set(names) - {"codes.parquet"})
    own, others = codes.read_bytes(), write_photos(bare.parent / "others", count=20)
    assert main(["prior", str(bare), *SMALL, "--data", str(others), "--split", "all"]) == 0
    assert read_header(codes).num_images == 20
    capsys.readouterr()
    assert main(["prior", str(bare), *SMALL, "--resume"]) == 1
    assert "a prior resumes only on the codes that it was started with" in capsys.readouterr().err
    shutil.rmtree(bare / "prior")
    codes.parent.mkdir()
    codes.write_bytes(own[: len(own) // 2])
    assert main(["prior", str(bare), *SMALL]) == 0
    assert codes.read_bytes() == own


def test_samples_follow_from_the_seed(run, tmp_path):
    for name, seed in (("one", "1"), ("again", "1"), ("two", "2")):
        out = str(tmp_path / f"{name}.png")
        assert main(["sample", str(run), "--images", "4", "--seed", seed, "--out", out]) == 0
    assert np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "again.png"))
    assert not np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png"))


def test_pixels_can_be_drawn_and_coarse_codes_kept(run, photos, tmp_path):
    photo = str(next(photos.glob("*.png")))
    options = ["--images", "4", "--level-0-of", photo, "--top-k", "1"]
    assert main(["sample", str(run), *options, "--out", str(tmp_path / "mean.png")]) == 0
    assert main(["sample", str(run), *options, "--draw-pixels", "--out", str(tmp_path / "drawn.png")]) == 0
    mean = pixels(tmp_path / "mean.png")
    half = mean.shape[0] // 2
    assert np.array_equal(mean[: half - 1], mean[half + 1 :])  # the same likeliest codes below as above
    assert not np.array_equal(mean, pixels(tmp_path / "drawn.png"))


@pytest.mark.filterwarnings("default")
def test_run_without_a_prior_samples_all_codes_alike_and_says_so(bare, tmp_path, capsys):
    assert main(["sample", str(bare), "--images", "2", "--out", str(tmp_path / "noise.png")]) == 0
    assert "has no prior: all codes are alike; train one with: depthq prior" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_a_model_of_a_large_stride_draws_images_that_it_gives(tmp_path):
    config = DQAEConfig(channels=(2,) * 6, num_residual_blocks=0, num_codebooks=2, codebook_size=4, codebook_dim=1)
    DQAE(config).save_pretrained(tmp_path / "model")
    assert main(["sample", str(tmp_path / "model"), "--images", "1", "--out", str(tmp_path / "one.png")]) == 0
    assert pixels(tmp_path / "one.png").shape == (64, 64, 3)


@pytest.mark.filterwarnings("default")
def test_a_shipped_model_is_to_be_copied_for_a_prior(tmp_path, photos, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "cifar10-lossless", "--images", "1", "--out", "noise.png"]) == 0
    told = re.search("train one with: (cp .*) && depthq (prior .*) DATA", capsys.readouterr().err)
    assert told is not None
    copy, prior = (command.split() for command in told.groups())
    subprocess.run(copy, check=True)
    assert main([*prior, str(photos), *SMALL, "--crop", "16"]) == 0


def test_level_0_of_a_model_of_one_level_is_refused(tmp_path, photos, capsys):
    DQAE(DQAEConfig(channels=(4, 4), num_residual_blocks=0)).save_pretrained(tmp_path / "model")
    photo = str(next(photos.glob("*.png")))
    command = ["sample", str(tmp_path / "model"), "--level-0-of", photo, "--out", str(tmp_path / "out.png")]
    assert main(command) == 1
    message = f"--level-0-of must come with a model of several levels; got {tmp_path / 'model'} of a single one"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--top-p", "0"], 2, "top-p"),
        (["--top-p", "1.5"], 2, "top-p"),
        (["--top-k", "0"], 2, "top_k"),
        (["--temperature", "-1"], 2, "temperature"),
        (["--images", "0"], 2, "images"),
        (["--level-0-of", "nowhere.png"], 1, "must be an image file; there is none at nowhere.png"),
    ],
)
def test_bad_options_of_sample_are_named(run, tmp_path, capsys, options, code, message):
    assert main(["sample", str(run), "--out", str(tmp_path / "out.png"), *options]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_prior_is_not_begun_twice_nor_resumed_with_other_options(run, capsys):
    assert main(["prior", str(run), *SMALL]) == 1
    assert "add --resume" in capsys.readouterr().err
    assert main(["prior", str(run), *SMALL, "--width", "32", "--resume"]) == 1
    assert "width was 16, is 32" in capsys.readouterr().err


def test_a_prior_that_was_interrupted_goes_on_with_the_command_that_is_told(
    tmp_path, trained_run, photos, monkeypatch, capsys
):
    """Of a model that does not know its data, in a folder with a space."""
    folder = tmp_path / "my models" / "a model"
    shutil.copytree(trained_run / "model", folder)
    original = PriorTraining.training_step

    def training_step(self, levels, index):
        if self.global_step == 6:
            raise KeyboardInterrupt
        return original(self, levels, index)

    with monkeypatch.context() as patched:
        patched.setattr(PriorTraining, "training_step", training_step)
        assert main(["prior", str(folder), "--data", str(photos), "--crop", "16", *SMALL]) == 130
    told = re.search("go on with: (depthq prior .*)", capsys.readouterr().err)
    assert told is not None
    words = shlex.split(told[1])
    assert words == ["depthq", "prior", str(folder), "--data", str(photos), "--crop", "16", "--resume"]
    assert main(words[1:]) == 0
    settings = yaml.safe_load((folder / "prior" / "config.yaml").read_text())
    assert (settings["num_layers"], settings["steps"]) == (1, 12)  # 3 and 3000 by default
    assert (folder / "prior" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("num_layers", "x", "config.yaml must be as it was written; got: "),
        ("num_layers", None, "config.yaml must name each setting of a run once; it lacks num_layers; put it back"),
        ("layers", 1, "config.yaml must name each setting of a run once; it has layers; put it back"),
    ],
)
def test_a_prior_whose_settings_are_damaged_is_not_resumed(run, bare, capsys, setting, value, message):
    shutil.copytree(run / "prior", bare / "prior")
    file = bare / "prior" / "config.yaml"
    settings = {**yaml.safe_load(file.read_text()), setting: value}
    file.write_text(yaml.safe_dump({name: value for name, value in settings.items() if value is not None}))
    assert main(["prior", str(bare), "--resume"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_a_shipped_model_with_a_prior_is_to_be_copied_without_it(tmp_path, photos, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(photos), "--crop", "16"]
    assert main(["prior", "mnist-tiny", *data, *SMALL]) == 1
    told = re.search("copy it first: (.*)", capsys.readouterr().err)
    assert told is not None
    subprocess.run(told[1], shell=True, check=True)
    assert (tmp_path / "my-mnist-tiny" / "config.json").is_file()
    assert not (tmp_path / "my-mnist-tiny" / "prior").exists()


def test_a_prior_that_was_not_trained_here_is_to_be_moved_away(tmp_path, photos, capsys):
    """Neither beginning nor going on sends one to the other."""
    folder = shutil.copytree(shipped_folder("photos-small"), tmp_path / "copy")
    command = ["prior", str(folder), "--data", str(photos), "--crop", "16", *SMALL]
    for options in ([], ["--resume"]):
        assert main([*command, *options]) == 1
        err = capsys.readouterr().err
        assert "move it away" in err
        assert "add --resume" not in err


def test_damaged_prior_is_refused(run, bare, tmp_path, capsys):
    shutil.copytree(run / "prior", bare / "prior")
    (bare / "prior" / "model.safetensors").write_bytes(b"half")
    assert main(["sample", str(bare), "--out", str(tmp_path / "out.png")]) == 1
    assert "must be whole and fit config.json" in capsys.readouterr().err


def test_model_without_codes_has_no_prior(tmp_path, photos, capsys):
    run = tmp_path / "run"
    assert main(["train", "--data", str(photos), "--out", str(run), "--preset", "tiny", "--steps", "1",
                 "--quantizer", "none"]) == 0  # fmt: skip
    assert main(["prior", str(run), *SMALL]) == 1
    assert "quantizer must have codebooks" in capsys.readouterr().err
    assert main(["sample", str(run), "--out", str(tmp_path / "out.png")]) == 1
    assert "must be a model with codes" in capsys.readouterr().err


def test_report_shows_samples_above_the_nearest_training_images(run, capsys):
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "What the prior draws" in page
    assert "nearest of\n    35 training images" in page
    assert "codes under the prior" in page
