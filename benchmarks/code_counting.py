"""How fast pairs of codes are counted, beside NumPy's and scikit-learn's ways of building the same tables.

python benchmarks/code_counting.py                        # 10^7 positions x 10 codebooks of 512: 45 tables
python benchmarks/code_counting.py --positions 100000 --codebooks 4

Codes are drawn from a Zipf law, and neighbouring codebooks share some of them, so that counts are as uneven
as those of a trained model. All ways are asserted to give the same table before any is timed. One JSON line
per way.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from itertools import combinations

import numpy as np
import sklearn
import torch
from sklearn.metrics.cluster import contingency_matrix

from depthq.analysis import CodeCounts


def main() -> None:
    args = _parse_arguments()
    codes = draw_codes(args.positions, args.codebooks, args.codebook_size)
    pairs = list(combinations(range(args.codebooks), 2))
    peer_pairs = pairs[: args.peer_pairs]
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "depthq CodeCounts": (lambda: count_depthq(codes, args.codebook_size), len(pairs)),
        "numpy bincount": (lambda: count_numpy(codes, args.codebook_size, pairs), len(pairs)),
        "numpy histogram2d": (
            lambda: count_histogram2d(codes, args.codebook_size, peer_pairs),
            len(peer_pairs),
        ),
        "sklearn contingency_matrix": (lambda: count_sklearn(codes, peer_pairs), len(peer_pairs)),
    }
    check_agreement(codes[:10_000], args.codebook_size)
    ours = None
    for name, (count, num_pairs) in ways.items():
        seconds = [_seconds(count) for _ in range(args.repeats)]
        low, median, high = np.percentile(seconds, [20, 50, 80])
        per_pair = median / num_pairs
        ours = ours or per_pair
        row = {
            "way": name,
            "positions": args.positions,
            "codebooks": args.codebooks,
            "codebook_size": args.codebook_size,
            "pairs": num_pairs,
            "seconds_p20": round(low, 4),
            "seconds_p50": round(median, 4),
            "seconds_p80": round(high, 4),
            "ns_per_pair_of_codes": round(1e9 * per_pair / args.positions, 3),
            "time_ratio_per_pair": round(per_pair / ours, 2),
        }
        print(json.dumps(row | _environment()))


def draw_codes(positions: int, codebooks: int, size: int) -> np.ndarray:
    """int16 (positions, codebooks): Zipf codes, each copied from the codebook before with probability 0.3."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, size + 1)
    bounds = np.cumsum(shares / shares.sum())[:-1]
    codes = np.empty((positions, codebooks), dtype=np.int16)
    for index in range(codebooks):
        codes[:, index] = np.searchsorted(bounds, rng.random(positions, dtype=np.float32))
        if index:
            copied = rng.random(positions, dtype=np.float32) < 0.3
            codes[copied, index] = codes[copied, index - 1]
    return codes


def count_depthq(codes: np.ndarray, size: int) -> CodeCounts:
    return CodeCounts([size] * codes.shape[1]).update(codes)


def count_numpy(codes: np.ndarray, size: int, pairs: list[tuple[int, int]]) -> list[np.ndarray]:
    columns = codes.T.astype(np.int64)
    return [np.bincount(columns[a] * size + columns[b], minlength=size * size).reshape(size, size) for a, b in pairs]


def count_histogram2d(codes: np.ndarray, size: int, pairs: list[tuple[int, int]]) -> list[np.ndarray]:
    edges = np.arange(size + 1)
    return [np.histogram2d(codes[:, a], codes[:, b], bins=(edges, edges))[0] for a, b in pairs]


def count_sklearn(codes: np.ndarray, pairs: list[tuple[int, int]]) -> list:
    return [contingency_matrix(codes[:, a], codes[:, b], sparse=True) for a, b in pairs]


def check_agreement(codes: np.ndarray, size: int) -> None:
    table = count_depthq(codes, size).joint((0, 0), (0, 1)).numpy()
    assert (table == count_numpy(codes, size, [(0, 1)])[0]).all()
    assert (table == count_histogram2d(codes, size, [(0, 1)])[0]).all()
    used = table[table.any(1)][:, table.any(0)]  # scikit-learn leaves out codes that do not occur
    assert (used == count_sklearn(codes, [(0, 1)])[0].toarray()).all()


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _environment() -> dict[str, str | int]:
    return {
        "dtype": "int16",
        "device": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "sklearn": sklearn.__version__,
    }


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the counting of pairs of codes, beside other libraries.")
    parser.add_argument("--positions", type=int, default=10_000_000)
    parser.add_argument("--codebooks", type=int, default=10)
    parser.add_argument("--codebook-size", type=int, default=512)
    parser.add_argument("--peer-pairs", type=int, default=1, help="pairs to time the slow peers on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="seconds on any machine: does it run at all?")
    args = parser.parse_args()
    if args.smoke:
        args.positions, args.codebooks, args.codebook_size, args.repeats = 20_000, 3, 16, 1
    return args


if __name__ == "__main__":
    main()
