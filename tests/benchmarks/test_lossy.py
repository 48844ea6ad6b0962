"""The benchmark of lossy files: its figures are those of the files, and its rivals are asked for as much quality."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import depthq
from depthq.data import evaluation_loader, open_images
from depthq.runs import load_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_benchmark_tells_what_files_take_and_draws(trained_run, photos, tmp_path):
    picture = tmp_path / "curve.png"
    command = [sys.executable, BENCHMARKS / "lossy.py", trained_run, "--data", photos, "--limit", "3", "--out", picture]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    ours, codecs = rows[0], rows[1:-1]
    (images,) = evaluation_loader(open_images(photos, "test"), batch_size=3, limit=3)
    model = load_model(trained_run)
    file = depthq.compress(model, images)
    assert ours["bits_per_pixel"] == pytest.approx(8 * len(file) / images[:, 0].numel())
    error = (model.reconstruct(images).double() - images.double()).square().mean()
    assert ours["psnr_db"] == pytest.approx(10 * (255**2 / error).log10().item())
    assert len(codecs) == 3 * 14
    assert f"| depthwise, M = {model.config.num_codebooks}, no prior | " in done.stdout
    with Image.open(picture) as curve:
        assert curve.width > 600


@pytest.fixture
def lossy(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import lossy

    return lossy


def test_bits_between_two_qualities_and_none_beyond(lossy):
    curve = [{"psnr_db": 20.0, "bits_per_pixel": 0.5}, {"psnr_db": 30.0, "bits_per_pixel": 2.0}]
    assert lossy.bits_at(25.0, curve) == pytest.approx(1.0)
    assert lossy.bits_at(20.0, curve) == pytest.approx(0.5)
    assert lossy.bits_at(31.0, curve) is None


def test_psnr_of_all_pixels(lossy):
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    off_by_one = images.clone()
    off_by_one[0] = 1  # every sub-pixel of one of two images: a mean squared error of 1/2
    error = lossy.squared_error(off_by_one, images)
    assert lossy.psnr_db(error, images) == pytest.approx(48.1308 + 3.0103, abs=1e-4)
