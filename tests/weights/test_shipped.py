"""Models that come with the package: they load by name everywhere, and do what their cards say."""

import json

import pytest
import torch

import depthq
from depthq.cli import main
from depthq.data import open_whole_images
from depthq.pixels import pad_to_multiple, psnr_db
from depthq.weights import SHIPPED, shipped_folder

WITH_PRIOR = ("photos-small", "mnist-tiny")
LIMIT_BYTES = 8 * 2**20


@pytest.fixture(scope="module")
def photo():
    """A real photo that no training saw, 300 x 451, which no stride divides."""
    photos = open_whole_images("bundled", "test")
    names = [origin.id for origin in photos.origins(range(len(photos)))]
    return torch.tensor(photos[names.index("chelsea.png")])


def test_all_are_there_and_small_enough_for_the_wheel():
    size = 0
    for name in SHIPPED:
        folder = shipped_folder(name)
        assert folder is not None
        assert (folder / "model.safetensors").is_file()
        size += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert size <= LIMIT_BYTES


@pytest.mark.parametrize("name", SHIPPED)
def test_card_is_filled_in(name):
    card = (shipped_folder(name) / "README.md").read_text()
    for heading in (f"# {name}\n", "## Training", "## Figures", "## Licence"):
        assert heading in card
    assert f"python -m studies.weights {name}" in card
    assert f'from_pretrained("{name}")' in card


@pytest.mark.parametrize("name", SHIPPED)
def test_it_loads_by_name(name):
    model = depthq.DQAE.from_pretrained(name)
    assert not model.training
    if name in WITH_PRIOR:
        assert depthq.CodePrior.from_pretrained(name).codebook_sizes == model.codebook_sizes


def test_a_photo_of_any_size_looks_like_itself(photo):
    model = depthq.DQAE.from_pretrained("photos-small")
    made = model.reconstruct(pad_to_multiple(photo[None], model.config.image_multiple))[:, :, :300, :451]
    assert psnr_db(made.float(), photo[None].float()) > 30


def test_more_codes_show_more(photo):
    model = depthq.DQAE.from_pretrained("photos-small")
    codes = model.encode(photo[None, :, :96, :96])
    shown = [model.decode(codes, levels=[0]), model.decode(codes, num_codebooks=2), model.decode(codes)]
    quality = [float(psnr_db(made.float(), photo[None, :, :96, :96].float())) for made in shown]
    assert quality == sorted(quality)


def test_a_file_without_loss_is_smaller_than_png(photo, tmp_path, capsys):
    from depthq.pixels import to_picture

    crop = photo[:, 100:164, 100:164]
    to_picture(crop).save(tmp_path / "cat.png", optimize=True)
    options = [str(tmp_path / "cat.png"), "--out", str(tmp_path / "cat.dq"), "--lossless", "--json", "--quiet"]
    assert main(["compress", "cifar10-lossless", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verified"] is True
    assert told["bytes"] < (tmp_path / "cat.png").stat().st_size


def test_unknown_names_are_told_the_known_ones(capsys):
    assert main(["evaluate", "photos-smal", "--data", "bundled"]) == 1
    error = capsys.readouterr().err
    assert "photos-small, cifar10-lossless, mnist-tiny" in error
    assert error.count("\n") == 1


def test_they_are_listed(capsys):
    assert main(["info", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SHIPPED)
    assert main(["info", "--list", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == list(SHIPPED)


def test_a_shipped_model_is_not_trained_on(capsys):
    assert main(["prior", "mnist-tiny", "--data", "bundled"]) == 1
    assert "cp -r" in capsys.readouterr().err


def test_whole_bundled_photos_are_counted_as_such(tmp_path, capsys):
    options = ["--data", "bundled", "--split", "test", "--limit", "1", "--out", str(tmp_path / "codes.parquet")]
    assert main(["encode", "photos-small", *options, "--quiet"]) == 0
    assert "codes of 1 of 9 images (--split test)" in capsys.readouterr().out
