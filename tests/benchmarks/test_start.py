import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "start.py"


def test_benchmark_runs_and_names_what_it_starts():
    result = subprocess.run([sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True)
    for name in ("import depthq", "depthq --help"):
        assert f'{{"name": "{name}", "median_ms": ' in result.stdout
