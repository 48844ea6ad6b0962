"""depthq evaluate: metrics, their names and units."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from depthq.cli import main
from depthq.pixels import pad_to_multiple
from depthq.runs import load_model

KEYS = {
    "images",
    "nll_nats_per_dim",
    "nll_bits_per_dim",
    "code_bits_per_dim",
    "total_bits_per_dim",
    "mse_normalized",
    "psnr_db",
    "ssim",
    "levels",
}
PRIOR = {"prior_bits_per_dim", "total_bits_per_dim_with_prior"}


def evaluate(capsys, *arguments) -> dict:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_json_of_a_discrete_likelihood_has_every_metric(trained_run, capsys):
    metrics = evaluate(capsys, trained_run)
    assert metrics.keys() >= KEYS
    assert {name for name, value in metrics.items() if value is None} == {"causal_nll_bits_per_dim", *PRIOR}
    assert metrics["images"] == 5
    assert metrics["nll_bits_per_dim"] == pytest.approx(metrics["nll_nats_per_dim"] / 0.6931471805599453)
    # Level 0: 2 x 2 positions x 2 codebooks x 3 bits; level 1: 4 x 4 positions x 2 codebooks x 4 bits; 768 dims.
    assert metrics["code_bits_per_dim"] == pytest.approx((4 * 2 * 3 + 16 * 2 * 4) / 768)
    assert metrics["total_bits_per_dim"] == pytest.approx(metrics["nll_bits_per_dim"] + metrics["code_bits_per_dim"])
    assert [len(level[name]) for level in metrics["levels"] for name in ("perplexity", "usage", "entropy_bits")] == (
        [2] * 6
    )


def test_metrics_that_l2_does_not_have_are_null(tmp_path, photos, capsys):
    run = tmp_path / "run"
    assert main(["train", "--data", str(photos), "--out", str(run), "--preset", "tiny", "--steps", "1"]) == 0
    capsys.readouterr()
    metrics = evaluate(capsys, run)
    nulls = {name for name, value in metrics.items() if value is None}
    assert nulls == {"nll_nats_per_dim", "nll_bits_per_dim", "causal_nll_bits_per_dim", "total_bits_per_dim", *PRIOR}
    assert metrics["code_bits_per_dim"] == pytest.approx(16 * 2 * 3 / 768)


def test_model_without_a_quantizer_has_no_code_metrics(tmp_path, photos, capsys):
    run = tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "1", "--quantizer", "none", "--likelihood", "categorical"]
    assert main(["train", "--data", str(photos), "--out", str(run), *options]) == 0
    capsys.readouterr()
    metrics = evaluate(capsys, run)
    nulls = {name for name, value in metrics.items() if value is None}
    without_codes = {"code_bits_per_dim", "code_bits_per_pixel", "total_bits_per_dim"}
    assert nulls == {"causal_nll_bits_per_dim", *without_codes, *PRIOR}
    assert metrics["levels"] == []


def test_images_smaller_than_the_ssim_window_have_no_ssim(tmp_path, write_photos, capsys):
    run, data = tmp_path / "run", write_photos(tmp_path / "data", size=8)
    assert main(["train", "--data", str(data), "--out", str(run), "--preset", "tiny", "--steps", "1"]) == 0
    capsys.readouterr()
    assert evaluate(capsys, run)["ssim"] is None


def test_run_and_saved_model_give_the_same_metrics(trained_run, tmp_path, photos, capsys):
    load_model(trained_run).save_pretrained(tmp_path / "saved")
    assert evaluate(capsys, tmp_path / "saved", "--data", photos) == evaluate(capsys, trained_run)


def test_saved_model_needs_data(trained_run, capsys):
    assert main(["evaluate", str(trained_run / "model")]) == 1
    assert "--data must be given" in capsys.readouterr().err


def test_limit_and_split_choose_the_images(trained_run, capsys):
    assert evaluate(capsys, trained_run, "--limit", 3)["images"] == 3
    assert evaluate(capsys, trained_run, "--split", "train")["images"] == 35


@pytest.mark.filterwarnings("default")
def test_test_images_that_were_trained_on_are_told_of(trained_run, photos, tmp_path, capsys):
    assert evaluate(capsys, trained_run, "--split", "test")["images"] == 5  # a warning would be an error
    moved = tmp_path / "moved" / "test"
    shutil.copytree(photos, moved)
    (tmp_path / "moved" / "train").mkdir()
    shutil.copy(photos / "001.png", tmp_path / "moved" / "train")
    assert main(["evaluate", str(trained_run), "--data", str(tmp_path / "moved")]) == 0
    assert "was trained on 35 of these 40 images: the figures flatter it" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_a_run_is_told_of_no_other_images_that_have_the_names_and_sizes_of_its_own(tmp_path, write_photos, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    for seed, name in enumerate(("train", "test")):
        write_photos(tmp_path / name, count=6, seed=seed)
    for name in ("train", "test"):
        (data / name).mkdir(parents=True)
        for path in (tmp_path / name).iterdir():
            with Image.open(path) as picture:
                picture.save(data / name / f"{path.stem}.bmp")  # all of one size in bytes
    assert main(["train", "--data", str(data), "--out", str(run), "--preset", "tiny", "--steps", "1"]) == 0
    capsys.readouterr()
    told = {}
    for split in ("test", "all"):
        assert main(["evaluate", str(run), "--split", split]) == 0
        told[split] = capsys.readouterr().err
    assert "was trained on" not in told["test"]
    assert "was trained on 6 of these 12 images" in told["all"]
    for number in range(2):  # for testing now
        (data / "train" / f"{number:03}.bmp").rename(data / "test" / f"{number:03}.bmp")
    assert main(["evaluate", str(run), "--data", str(data)]) == 0
    assert "was trained on 2 of these 6 images" in capsys.readouterr().err


@torch.no_grad()
def test_images_of_any_size_are_measured_whole_without_their_padding(trained_run, tmp_path, capsys):
    generator = np.random.default_rng(0)
    for name, size in (("a.png", (20, 70)), ("b.png", (31, 17))):
        (tmp_path / "test").mkdir(exist_ok=True)
        (tmp_path / "train").mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "test" / name)
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "train" / name)
    found = evaluate(capsys, trained_run, "--data", tmp_path)
    model, nats, bits, dims = load_model(trained_run), 0.0, 0.0, 0
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / "test" / name) as picture:
            image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        output = model(pad_to_multiple(image, 8))
        shown = output.parameters[:, :, : image.shape[2], : image.shape[3]]
        nats -= float(model.likelihood.log_prob(shown, image).sum())
        bits += output.codes.num_bits()
        dims += image.numel()
    assert found["images"] == 2
    assert found["nll_nats_per_dim"] == pytest.approx(nats / dims, rel=1e-5)
    assert found["code_bits_per_dim"] == pytest.approx(bits / dims, rel=1e-9)


def test_table_states_units_headline_first(trained_run, capsys):
    assert main(["evaluate", str(trained_run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 images"
    assert lines[1].split()[0] == "total"
    assert "bits/dim" in lines[1]
    assert any("what the paper reports, in bits" in line for line in lines)


@pytest.mark.parametrize("limit", ["0", "-3", "few"])
def test_limit_must_be_positive(trained_run, capsys, limit):
    assert main(["evaluate", str(trained_run), "--limit", limit]) == 2
    assert "limit" in capsys.readouterr().err


@pytest.mark.parametrize("crop", [[], ["--crop", "8"]])
def test_gray_images_are_colour_to_a_colour_model(trained_run, tmp_path, write_photos, capsys, crop):
    gray, colour = write_photos(tmp_path / "gray", channels=1), tmp_path / "colour"
    colour.mkdir()
    for path in gray.iterdir():
        with Image.open(path) as picture:
            picture.convert("RGB").save(colour / path.name)
    assert evaluate(capsys, trained_run, "--data", gray, *crop) == evaluate(
        capsys, trained_run, "--data", colour, *crop
    )


def test_size_that_the_strides_do_not_divide_names_the_multiple(trained_run, capsys):
    assert main(["evaluate", str(trained_run), "--crop", "12"]) == 1
    assert "--crop must be a multiple of 8, the stride of the model's coarsest level; got 12" in capsys.readouterr().err


def test_run_without_a_model_yet_says_how_to_go_on(tmp_path, trained_run, capsys):
    run = tmp_path / "my run"
    run.mkdir()
    (run / "config.yaml").write_bytes((trained_run / "config.yaml").read_bytes())
    assert main(["evaluate", str(run)]) == 1
    told = f"must hold a trained model; got none yet; go on with: depthq train --out '{run}' --resume\n"
    assert told in capsys.readouterr().err


def test_folder_that_is_neither_run_nor_model_is_named(photos, capsys):
    assert main(["evaluate", str(photos)]) == 1
    assert f"{photos} must be a run of depthq train or a save_pretrained folder" in capsys.readouterr().err


def test_cut_off_weights_are_named(tmp_path, trained_run, photos, capsys):
    load_model(trained_run).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["evaluate", str(tmp_path), "--data", str(photos)]) == 1
    assert f"{weights} must be whole and fit config.json" in capsys.readouterr().err
