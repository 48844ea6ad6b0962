"""How fast pairs of codes are counted, beside NumPy's and scikit-learn's ways of building the same tables.

    python benchmarks/code_counting.py            # minutes: time and peak memory, up to 10^7 positions, M = 10, K = 512
    python benchmarks/code_counting.py --smoke    # seconds: checks that everything runs

Codes are drawn from a Zipf law, and neighbouring codebooks share some of them, so that counts are as uneven as those
of a trained model. All contestants build the tables of all pairs, and are asserted to build the same ones before any is
timed. Those that take minutes for the large shape run it twice, to warm up and for one round, and sit out the others.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations

import numpy as np
import sklearn
from measure import environment, peak_extra_bytes, print_rows, race
from sklearn.metrics.cluster import contingency_matrix

from depthq.analysis import CodeCounts

SHAPES = [(1_000_000, 10, 512), (10_000_000, 10, 512)]
"""(N, M, K)."""
SMOKE_SHAPE = (5000, 3, 16)


def main() -> None:
    args = parse_arguments()
    if args.memory_of:
        print(memory_bytes(args.memory_of, *args.shape))
        return
    for shape in [SMOKE_SHAPE] if args.smoke else SHAPES:
        compare(shape, rounds=2 if args.smoke else args.rounds)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; the medians count")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, two rounds")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # the process that measures its own memory
    parser.add_argument("--shape", type=int, nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def draw_codes(positions: int, num_codebooks: int, size: int) -> np.ndarray:
    """int16 (N, M): Zipf codes, each copied from the codebook before with probability 0.3."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, size + 1)
    bounds = np.cumsum(shares / shares.sum())[:-1]
    codes = np.empty((positions, num_codebooks), dtype=np.int16)
    for index in range(num_codebooks):
        codes[:, index] = np.searchsorted(bounds, rng.random(positions, dtype=np.float32))
        if index:
            copied = rng.random(positions, dtype=np.float32) < 0.3
            codes[copied, index] = codes[copied, index - 1]
    return codes


def count_depthq(codes: np.ndarray, size: int) -> CodeCounts:
    return CodeCounts([size] * codes.shape[1]).update(codes)


def count_bincount(codes: np.ndarray, size: int) -> list[np.ndarray]:
    columns = codes.T.astype(np.int64)
    tables = (np.bincount(a * size + b, minlength=size * size) for a, b in combinations(columns, 2))
    return [table.reshape(size, size) for table in tables]


def count_histogram2d(codes: np.ndarray, size: int) -> list[np.ndarray]:
    edges = np.arange(size + 1)
    return [np.histogram2d(a, b, bins=(edges, edges))[0] for a, b in combinations(codes.T, 2)]


def count_sklearn(codes: np.ndarray, size: int) -> list:
    return [contingency_matrix(a, b, sparse=True) for a, b in combinations(codes.T, 2)]


CONTESTANTS: dict[str, Callable[[np.ndarray, int], object]] = {
    "depthq CodeCounts": count_depthq,
    "numpy bincount": count_bincount,
    "numpy histogram2d": count_histogram2d,
    "sklearn contingency_matrix": count_sklearn,
}
MEMORY_OF = ("depthq CodeCounts", "numpy bincount")


def assert_same(codes: np.ndarray, size: int) -> None:
    """All contestants build the same table for every pair of codebooks."""
    counts, pairs = count_depthq(codes, size), list(combinations(range(codes.shape[1]), 2))
    peers = zip(count_bincount(codes, size), count_histogram2d(codes, size), count_sklearn(codes, size), strict=True)
    for (a, b), (bincount, histogram, contingency) in zip(pairs, peers, strict=True):
        table = counts.joint((0, a), (0, b)).numpy()
        assert np.array_equal(table, bincount)
        assert np.array_equal(table, histogram)
        used = table[table.any(1)][:, table.any(0)]  # scikit-learn leaves out codes that do not occur
        assert np.array_equal(used, contingency.toarray())


def compare(shape: tuple[int, int, int], *, rounds: int) -> None:
    codes, size = draw_codes(*shape), shape[2]
    assert_same(codes[:10_000], size)
    timings = race({name: lambda run=run: run(codes, size) for name, run in CONTESTANTS.items()}, rounds=rounds)
    facts = {
        **dict(zip("NMK", shape, strict=True)),
        "dtype": str(codes.dtype),
        "numpy": np.__version__,
        "sklearn": sklearn.__version__,
        **environment(),
    }
    print_rows("tables of all pairs of codebooks, N={} M={} K={}".format(*shape), timings, facts)
    for name in MEMORY_OF:
        command = [sys.executable, __file__, "--memory-of", name, "--shape", *map(str, shape)]
        peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(json.dumps({"name": f"{name}, memory beyond the codes", "MiB": round(peak / 2**20, 1), **facts}))


def memory_bytes(name: str, *shape: int) -> int:
    """Peak memory of counting once, tables included, of this process."""
    count, size = CONTESTANTS[name], shape[2]
    count(draw_codes(*SMOKE_SHAPE), SMOKE_SHAPE[2])  # loads libraries
    codes = draw_codes(*shape)
    return peak_extra_bytes(lambda: count(codes, size))


if __name__ == "__main__":
    main()
