import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


def test_damaged_files_are_told_or_change_nothing():
    command = [sys.executable, BENCHMARK, "--mutations", "90", "--seed", "7"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=400).stdout.splitlines()
    rows = [line.split() for line in lines if line.split()[-1:] and line.split()[-1].isdigit()]
    assert len(rows) == 9
    assert [row for row in rows if row[-1] != "0"] == [], lines
