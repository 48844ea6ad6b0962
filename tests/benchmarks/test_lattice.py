"""The figure of the lattice: it grows with one, and is 1 for the photo itself."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from depthq.models import DQAE, DQAEConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def lattice(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import lattice

    return lattice


def test_benchmark_runs_and_draws(tmp_path):
    command = [sys.executable, BENCHMARKS / "lattice.py", "--steps", "2", "--out", tmp_path / "lattice.png"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["photo"] for row in rows] == 3 * ["astronaut.png", "chelsea.png", "coffee.png"]
    apart, alike, trained = rows[:3], rows[3:6], rows[6:]
    assert all(more["lattice"] > 10 * less["lattice"] for more, less in zip(apart, alike, strict=True))  # untrained yet
    assert all(row["lattice"] < 1.1 for row in trained)
    with Image.open(tmp_path / "lattice.png") as picture:
        assert picture.width >= 3 * 3 * 80


def test_energy_is_that_of_the_lattice_in_flat_parts(lattice):
    torch.manual_seed(0)
    photo = torch.randint(120, 136, (1, 3, 64, 64), dtype=torch.uint8)
    photo[:, :, :, 32:] = torch.randint(0, 256, (1, 3, 64, 32), dtype=torch.uint8)  # the left half is flat
    assert lattice.lattice_energy(photo, photo) == 1
    for period in (2, 4):
        marked = photo.clone()
        marked[:, :, ::period] += 8
        elsewhere = photo.clone()
        elsewhere[:, :, ::period, 32:] = 0
        assert lattice.lattice_energy(marked, photo) > 3
        assert lattice.lattice_energy(elsewhere, photo) == 1
    slower = photo.clone()
    slower[:, :, ::16] += 8  # a period that only its own harmonics share
    assert lattice.lattice_energy(slower, photo) < lattice.lattice_energy(marked, photo)


def test_start_of_each_its_own(lattice):
    model = DQAE(DQAEConfig(channels=(8, 16)))
    of_places = [part.weight.unflatten(0, (-1, 4)) for part in _sub_pixel_convolutions(model)]
    assert of_places
    assert all((weight == weight[:, :1]).all() for weight in of_places)
    lattice.draw_sub_pixels_apart(model)
    of_places = [part.weight.unflatten(0, (-1, 4)) for part in _sub_pixel_convolutions(model)]
    assert all((weight != weight[:, :1])[:, 1:].float().mean() > 0.99 for weight in of_places)


def _sub_pixel_convolutions(model: DQAE) -> list[nn.Conv2d]:
    parts = list(model.modules())
    return [before for before, after in pairwise(parts) if isinstance(after, nn.PixelShuffle)]
