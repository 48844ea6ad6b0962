"""depthq density: features from a file or a backbone, and a table like Table 2."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from depthq.cli import main
from depthq.features.density import estimate_density

QUICK = ["--codebook-size", "2", "8", "--steps", "3", "--seeds", "2", "--num-codebooks", "2"]


def density(capsys, *arguments) -> dict:
    assert main(["density", *map(str, arguments), *QUICK, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def make_backbone() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 8, stride=8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def backbone(monkeypatch) -> str:
    monkeypatch.setitem(sys.modules, "some_networks", SimpleNamespace(make=make_backbone))
    return "some_networks:make"


@pytest.fixture
def features(tmp_path):
    path = tmp_path / "features.npy"
    np.save(path, np.random.default_rng(0).standard_normal((25, 6, 2, 2), dtype=np.float32))
    return path


def test_the_last_fifth_of_a_file_is_held_out(features, capsys):
    found = density(capsys, features)
    assert (found["training_shape"], found["held_out_shape"]) == ([20, 6, 2, 2], [5, 6, 2, 2])
    assert [(row["axis"], row["codebook_size"]) for row in found["rows"]] == [
        ("channel", 2),
        ("row", 2),
        ("channel", 8),
        ("row", 8),
    ]
    maps = np.load(features)
    expected = estimate_density(
        maps[:20], maps[20:], axis="row", codebook_size=8, num_codebooks=2, steps=3, seeds=2
    ).held_out
    assert found["rows"][3]["held_out"]["mse"]["mean"] == pytest.approx(expected.mse.mean)
    assert found["feature_deviation"] == pytest.approx(maps[:20].std(), rel=1e-4)


def test_another_file_may_be_held_out(features, capsys):
    found = density(capsys, features, "--held-out", features, "--axis", "channel")
    assert found["held_out_shape"] == [25, 6, 2, 2]
    assert all(row["held_out"] == row["training"] for row in found["rows"])


def test_features_of_a_backbone_can_be_kept_and_used_again(backbone, photos, tmp_path, capsys):
    source = ["--backbone", backbone, "--data", photos, "--image-size", 16]
    found = density(capsys, *source, "--layer", "0", "--out", tmp_path / "kept")
    assert (found["training_shape"], found["held_out_shape"]) == ([35, 6, 2, 2], [5, 6, 2, 2])
    again = density(capsys, tmp_path / "kept" / "train.npy", "--held-out", tmp_path / "kept" / "test.npy")
    assert [row["axis"] for row in again["rows"]] == [row["axis"] for row in found["rows"]]
    assert again["feature_mean"] == found["feature_mean"]


def test_options_of_a_backbone_reach_it(backbone, photos, tmp_path, capsys):
    weights = {"0.weight": torch.ones(6, 3, 8, 8) / (3 * 8 * 8), "0.bias": torch.full((6,), 10.0)}
    torch.save(weights, tmp_path / "w.pth")
    options = ["--weights", tmp_path / "w.pth", "--normalize", "symmetric", "--limit", 3, "--out", tmp_path / "kept"]
    found = density(capsys, "--backbone", backbone, "--data", photos, "--image-size", 16, *options)
    maps = np.load(tmp_path / "kept" / "train.npy")  # 10 + means of 8 x 8 pixels in -1..1, after the ReLU
    assert found["training_shape"] == [3, 6, 2, 2]
    assert 9 <= maps.min() < maps.max() <= 11


def test_gray_images_go_to_all_three_channels(backbone, write_photos, tmp_path, capsys):
    gray = write_photos(tmp_path / "gray", channels=1)
    found = density(capsys, "--backbone", backbone, "--data", gray, "--image-size", 16)
    assert found["training_shape"] == [35, 6, 2, 2]


def test_transparent_images_are_laid_on_a_background(backbone, write_photos, tmp_path, capsys):
    data = write_photos(tmp_path / "photos")
    Image.new("RGBA", (16, 16)).save(data / "000.png")
    command = ["density", "--backbone", backbone, "--data", str(data), "--image-size", "16", *QUICK]
    assert main(command) == 1
    assert "or pass --background white" in capsys.readouterr().err
    assert main([*command, "--background", "white"]) == 0


def test_table_names_protocol_and_units(features, capsys):
    assert main(["density", str(features), *QUICK]) == 0
    out = capsys.readouterr().out
    assert "20 x 6 x 2 x 2 for training, 5 x 6 x 2 x 2 held out" in out
    assert "3 steps; mean +- standard deviation of 2 seeds" in out
    assert "H, nats" in out
    assert "corrected" in out
    assert "note: held-out features, by row, give each codebook only 20 vectors" in out
    assert "2, by channel      2    3  held out" in out
    assert "2, by row          8    3  held out" in out
    assert out.count("training  ") == 5  # the protocol's line, and one per row


def test_help_has_examples(capsys):
    assert main(["density", "--help"]) == 0
    assert "depthq density --backbone torchvision:vgg16 --data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "features must come from one place"),
        (["f.npy", "--backbone", "timm:resnet50"], "features must come from one place"),
        (["--backbone", "timm:resnet50"], "--data must be given with --backbone"),
        (["f.npy", "--data", "bundled"], "--data must go with --backbone; got features from f.npy; leave it out"),
        (["f.npy", "--image-size", "32"], "--image-size must go with --backbone; got features from f.npy"),
        (["f.npy", "--normalize", "symmetric"], "--normalize must go with --backbone; got features from f.npy"),
        (["--backbone", "timm:resnet50", "--data", "x", "--held-out", "f.npy"], "--held-out must go with an .npy file"),
        (["f.npy", "--seeds", "0"], "seeds"),
        (["f.npy", "--axis", "column"], "axis"),
        (["f.npy", "--device", "nowhere"], "device"),
    ],
)
def test_wrong_commands_are_usage_errors(capsys, arguments, message):
    assert main(["density", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_missing_and_spoilt_files_are_data_errors(tmp_path, features, capsys):
    assert main(["density", str(tmp_path / "none.npy")]) == 1
    assert "none.npy" in capsys.readouterr().err
    features.write_bytes(features.read_bytes()[:-1])
    assert main(["density", str(features)]) == 1
    assert "must be a whole .npy file" in capsys.readouterr().err


def test_features_that_do_not_fit_are_data_errors(tmp_path, features, capsys):
    assert main(["density", str(features), "--num-codebooks", "3"]) == 1
    assert "got 3 for 2 rows" in capsys.readouterr().err
    np.save(tmp_path / "few.npy", np.ones((4, 6, 2, 2)))
    assert main(["density", str(tmp_path / "few.npy")]) == 1
    assert "at least 5 maps" in capsys.readouterr().err


def test_unknown_layer_is_a_data_error_and_leaves_no_folder(backbone, photos, tmp_path, capsys):
    source = ["--backbone", backbone, "--data", str(photos), "--image-size", "16", "--out", str(tmp_path / "kept")]
    assert main(["density", *source, "--layer", "00"]) == 1
    assert "layer must be one of the backbone's; got '00'; try 0" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_an_empty_layer_name_is_no_default(backbone, photos, capsys):
    assert main(["density", "--backbone", backbone, "--data", str(photos), "--image-size", "16", "--layer", ""]) == 1
    assert "layer must be one of the backbone's; got ''; try 0" in capsys.readouterr().err


def test_maps_that_do_not_fit_are_told_before_the_images_are_read(backbone, capsys):
    source = ["--backbone", backbone, "--data", "no-such-data", "--image-size", "16"]
    assert main(["density", *source, "--num-codebooks", "3"]) == 1
    assert "got 3 for 2 rows" in capsys.readouterr().err
