import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "train_step.py"


def test_benchmark_runs_and_names_every_quantizer():
    result = subprocess.run([sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True)
    for name in ("none", "depthwise", "shared", "residual"):
        assert f'{{"name": "{name}", "median_ms": ' in result.stdout
