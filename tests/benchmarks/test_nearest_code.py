import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "nearest_code.py"


def test_smoke_run_reports_ours_the_limit_and_the_peers():
    command = [sys.executable, BENCHMARK, "--smoke"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    names = " ".join(row["name"] for row in rows)
    assert all(
        name in names
        for name in ("bmm", "depthq", "duplicated codewords", "faiss", "vector-quantize-pytorch", "memory")
    )
    assert rows[0]["ratio"] == 1.0
    assert {"median_ms", "p20_ms", "p80_ms", "N", "M", "K", "D", "dtype", "device", "torch"} <= rows[0].keys()


@pytest.mark.parametrize("shape", [(200_000, 1, 256, 8), (1000, 1, 50_000, 32)], ids=["many vectors", "many codewords"])
def test_search_takes_at_most_16_mib_per_thread(shape):
    command = [sys.executable, BENCHMARK, "--memory-of", "depthq", "--shape", *map(str, shape)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(output) <= 16 * 2**20
