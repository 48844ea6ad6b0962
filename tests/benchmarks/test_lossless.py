"""The benchmark of lossless files runs, on a few images of a tiny run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("options", [[], ["--ours-only"]])
def test_benchmark_compares_what_it_decoded(trained_run, photos, options):
    command = [sys.executable, BENCHMARKS / "lossless.py", trained_run, "--data", photos, "--limit", "3", *options]
    done = subprocess.run([*map(str, command), "--effort", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == (1 if options else 7)
    assert all(row["bits_per_dim"] > 0 and row["encode_mb_per_s"] > 0 for row in rows)
    assert "bits/dim more" in done.stdout
