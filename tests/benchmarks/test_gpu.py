"""What `make gpu` runs, on a CPU with tiny sizes; without a GPU it says so."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*options):
    return subprocess.run([sys.executable, BENCHMARK, *map(str, options)], capture_output=True, text=True)


def test_a_page_is_written_of_tests_benchmarks_and_training(tmp_path):
    page = tmp_path / "gpu.md"
    done = run("--smoke", "--run", tmp_path / "run", "--page", page)
    assert done.returncode == 0, done.stdout + done.stderr
    text = page.read_text()
    assert "Tests of the kernels: " in text
    assert " passed" in text
    assert "| depthq DepthwiseQuantizer |" in text
    assert "| 6 |" in text  # the step of the last validation


def test_a_run_stopped_before_its_first_metrics_has_a_page_too(tmp_path):
    page = runpy.run_path(str(BENCHMARK))["page"]
    assert page("1 passed", {}, 0, tmp_path).endswith("Not as far as its first validation.\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    done = run("--page", tmp_path / "gpu.md")
    assert done.returncode == 1
    assert "a CUDA device must be there; PyTorch finds none" in done.stdout
    assert not list(tmp_path.iterdir())
