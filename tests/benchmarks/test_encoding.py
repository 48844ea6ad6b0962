import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "encoding.py"


def test_rates_of_the_plain_loop_and_of_workers_are_told():
    pytest.importorskip("ray")
    done = subprocess.run([sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True)
    plain, workers = map(json.loads, done.stdout.splitlines())
    assert (plain["name"], workers["name"]) == ("plain loop", "1 workers")
    assert min(plain["images_per_second"], workers["images_per_second"]) > 0
    assert workers["ratio_to_plain"] == pytest.approx(
        workers["images_per_second"] / plain["images_per_second"], rel=0.05
    )
