"""What the benchmark says of prefixes is what decoding them gives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from depthq.data import evaluation_loader, open_images
from depthq.pixels import psnr_db
from depthq.runs import load_model

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "prefixes.py"


def test_psnr_of_each_prefix(trained_run, photos):
    command = [sys.executable, BENCHMARK, trained_run, "--data", photos, "--limit", "3"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    row = json.loads(done.stdout)
    model = load_model(trained_run)
    images = torch.cat(list(evaluation_loader(open_images(photos, "test"), batch_size=3, limit=3)))
    first = model.decode(model.encode(images), num_codebooks=1)
    at = row["levels_and_codebooks"].index([model.config.num_levels, 1])
    assert row["psnr_db"][at] == pytest.approx(psnr_db(first.float(), images.float()).mean().item(), abs=0.01)
    assert row["levels_and_codebooks"][-1] == [model.config.num_levels, model.config.num_codebooks]
    assert row["psnr_db"][-1] == pytest.approx(
        psnr_db(model.reconstruct(images).float(), images.float()).mean().item(), abs=0.01
    )
    assert row["images"] == 3
