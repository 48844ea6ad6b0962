"""depthq info: levels, code shapes, bits and parameters."""

import json

import pytest

from depthq import DQAE, DQAEConfig
from depthq.cli import main
from depthq.runs import load_model


def info(capsys, *arguments) -> dict:
    assert main(["info", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_bits_and_shapes_are_those_of_the_codes(trained_run, capsys):
    facts = info(capsys, trained_run)
    assert facts["image_shape"] == [3, 16, 16]
    assert [level["code_shape"] for level in facts["levels"]] == [[2, 2, 2], [2, 4, 4]]
    assert [level["codebook_sizes"] for level in facts["levels"]] == [[8, 8], [16, 16]]
    assert facts["code_bits_per_image"] == 4 * 2 * 3 + 16 * 2 * 4
    assert facts["code_bits_per_pixel"] == pytest.approx(152 / 256)
    assert facts["code_bits_per_dim"] == pytest.approx(152 / 768)
    assert facts["parameters"] == sum(weight.numel() for weight in load_model(trained_run).parameters())


def test_image_size_may_be_another(trained_run, capsys):
    facts = info(capsys, trained_run, "--image-size", 32)
    assert facts["code_bits_per_image"] == 4 * 152
    assert facts["code_bits_per_pixel"] == pytest.approx(152 / 256)


def test_saved_model_is_as_good_as_a_run(trained_run, capsys):
    saved = info(capsys, trained_run / "model", "--image-size", 16)
    assert saved == info(capsys, trained_run)


def test_table_states_bits_with_units(trained_run, capsys):
    assert main(["info", str(trained_run)]) == 0
    out = capsys.readouterr().out
    assert "level 0      2 x 2 positions x 2 codebooks of K = 8" in out
    assert "152 bits per image, 0.594 bits per pixel, 0.198 bits per dim" in out


def test_a_model_of_a_large_stride_is_shown_on_images_that_it_takes(tmp_path, capsys):
    config = DQAEConfig(channels=(2,) * 6, num_residual_blocks=0, num_codebooks=2, codebook_size=4, codebook_dim=1)
    DQAE(config).save_pretrained(tmp_path / "model")
    assert info(capsys, tmp_path / "model")["image_shape"] == [3, 64, 64]


def test_impossible_size_names_the_multiple(trained_run, capsys):
    assert main(["info", str(trained_run), "--image-size", "12"]) == 1
    assert "multiples of 8" in capsys.readouterr().err
