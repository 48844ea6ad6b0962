"""The benchmark of sampling runs, and draws."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sampling.py"


def test_benchmark_runs_and_draws(tmp_path):
    command = [sys.executable, BENCHMARK, "--smoke", "--images", "2", "--plot", tmp_path / "plot.png"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    assert done.stdout.count('"positions": 16') == 2
    assert (tmp_path / "plot.png").stat().st_size > 0
