import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "quantizers.py"


def test_every_quantizer_is_timed_and_a_first_draw_by_k_means_finds_clusters():
    result = subprocess.run([sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True)
    for name in ("depthwise", "depthwise, cosine", "residual, D = 20", "scalar", "binary", "shared"):
        assert f'{{"name": "{name}", "median_ms": ' in result.stdout
    found = int(result.stdout.split("k-means++: all 8 clusters found in ")[1].split()[0])
    assert found >= 9
