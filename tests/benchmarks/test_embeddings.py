import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "embeddings.py"


def test_rows_are_as_good_as_the_peers():
    command = [sys.executable, BENCHMARK, "--vectors", "5000", "--num-codebooks", "4", "--rounds", "1"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = {line.split()[0]: [float(number) for number in line.split()[1:]] for line in lines[2:4]}
    (_, _, ours, our_recall), (_, _, theirs, their_recall) = rows["depthq"], rows["faiss"]
    assert 0 < ours < 1.02 * theirs
    assert our_recall > their_recall - 0.05
