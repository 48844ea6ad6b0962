import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from depthq import DQAE, DQAEConfig
from depthq.models import QUANTIZERS

EXAMPLE = Path(__file__).parents[2] / "examples" / "compare_quantizers.py"


@pytest.fixture
def example():
    """The module, whose entry in the registry lasts as long as the test."""
    spec = importlib.util.spec_from_file_location("compare_quantizers", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del QUANTIZERS["lfq"]


def test_smoke_run_prints_a_row_per_quantizer():
    command = [sys.executable, EXAMPLE, "--smoke"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["depthwise", "residual", "shared", "scalar", "binary", "lfq"]
    assert all(float(line.split()[2]) > 0 for line in lines[1:])


@pytest.mark.usefixtures("example")
def test_the_registered_quantizer_codes_images():
    model = DQAE(DQAEConfig(quantizer="lfq", channels=(8, 16))).eval()
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    codes = model.encode(images)
    assert codes.num_bits() == 16 * 5 * 7
    assert model.decode(codes).shape == images.shape
