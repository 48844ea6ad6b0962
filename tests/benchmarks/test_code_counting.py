import importlib
import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "code_counting.py"


def test_smoke_run_reports_ours_and_the_peers():
    output = subprocess.run([sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    names = " ".join(row["name"] for row in rows)
    assert all(name in names for name in ("depthq", "bincount", "histogram2d", "sklearn", "memory"))
    assert rows[0]["ratio"] == 1.0
    assert {"median_ms", "p20_ms", "p80_ms", "N", "M", "K", "dtype", "device", "numpy", "sklearn"} <= rows[0].keys()


def test_all_peers_race_on_many_positions_too(monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARK.parent)
    benchmark = importlib.import_module("code_counting")
    benchmark.compare((1_200_000, 2, 4), rounds=1)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert {row["name"] for row in rows if "median_ms" in row} == {
        "depthq CodeCounts",
        "numpy bincount",
        "numpy histogram2d",
        "sklearn contingency_matrix",
    }


def test_counting_takes_little_more_memory_than_its_tables():
    command = [sys.executable, BENCHMARK, "--memory-of", "depthq CodeCounts", "--shape", "4000000", "4", "64"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(output) <= 48 * 2**20  # the codes alone are 122 MiB as int64
