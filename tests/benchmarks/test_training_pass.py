import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "training_pass.py"


def test_smoke_run_reports_ours_the_limit_and_the_peers():
    output = subprocess.run([sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    names = " ".join(row["name"] for row in rows)
    peers = ("bmm", "DepthwiseQuantizer", "check_finite=False", "separate heads", "GroupedResidualVQ")
    assert all(name in names for name in peers)
    assert rows[0]["ratio"] == 1.0
    assert {"median_ms", "p20_ms", "p80_ms", "N", "M", "K", "D", "dtype", "device", "torch"} <= rows[0].keys()
