"""Product quantization of embeddings: depthq's k-means codebooks beside faiss's ProductQuantizer, on the same cores.

    python benchmarks/embeddings.py                 # N = 10^6, D = 128, M = 8, K = 256: minutes, 2 GB
    python benchmarks/embeddings.py --vectors 20000 # seconds
    python benchmarks/embeddings.py --data e.npy    # your own

Both learn from the same 65,536 vectors, 25 iterations of k-means each; ours starts from k-means++. Recall@10 is the
share of a query's 10 true neighbours among the 10 that an IndexPQ with the codebooks finds. Without --data vectors are
tanh(z A) plus noise, z of 32 dimensions.
"""

import argparse
import time

import faiss
import numpy as np
import torch

import depthq
from depthq.cli.fit import ROWS_AT_ONCE, SAMPLES_PER_CODE

ITERATIONS, NUM_QUERIES, NEIGHBOURS = 25, 1000, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--data", help="a .npy array (N, D) instead")
    parser.add_argument("--num-codebooks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="the medians count")
    args = parser.parse_args()
    x = np.load(args.data).astype(np.float32) if args.data else synthetic(args.vectors)
    queries, x = x[:NUM_QUERIES], x[NUM_QUERIES:]
    truth = faiss.IndexFlatL2(x.shape[1])
    truth.add(x)
    _, neighbours = truth.search(queries, NEIGHBOURS)
    rows = np.random.default_rng(0).choice(len(x), min(SAMPLES_PER_CODE * 256, len(x)), replace=False)
    print(
        f"{len(x)} vectors of {x.shape[1]} entries, {args.num_codebooks} codebooks of 256; "
        f"{torch.get_num_threads()} threads"
    )
    print("             training (s)   encoding (s)   error per entry   recall@10")
    found = {"depthq": [], "faiss": []}
    for _ in range(args.rounds):  # in turn, so that both see the same machine
        found["depthq"].append(ours(x, rows, queries, neighbours, args.num_codebooks))
        found["faiss"].append(theirs(x, rows, queries, neighbours, args.num_codebooks))
    for name, rounds in found.items():
        training, encoding, error, recall = np.median(np.array(rounds), 0)
        print(f"{name:9}{training:16.2f}{encoding:15.2f}{error:18.5f}{recall:12.4f}")
    ratios = np.array(found["faiss"]) / np.array(found["depthq"])
    training, encoding = np.median(ratios[:, :2], 0)
    whole = np.median(np.array(found["faiss"])[:, :2].sum(1) / np.array(found["depthq"])[:, :2].sum(1))
    print(f"faiss's time over ours: training {training:.2f}, encoding {encoding:.2f}, both together {whole:.2f}")


def synthetic(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((32, 128), dtype=np.float32) / 4
    latent = rng.standard_normal((count, 32), dtype=np.float32)
    return np.tanh(latent @ matrix) + 0.1 * rng.standard_normal((count, 128), dtype=np.float32)


def ours(x, rows, queries, neighbours, num_codebooks) -> tuple[float, float, float, float]:
    start = time.perf_counter()
    torch.manual_seed(0)
    quantizer = depthq.DepthwiseQuantizer(x.shape[1], num_codebooks, 256, axis=-1, decay=0.0)
    quantizer.fit([torch.from_numpy(x[rows])] * ITERATIONS, steps=ITERATIONS, progress=False)
    trained = time.perf_counter()
    blocks = [x[begin : begin + ROWS_AT_ONCE] for begin in range(0, len(x), ROWS_AT_ONCE)]
    codes = [quantizer.encode(torch.from_numpy(block)) for block in blocks]
    encoded = time.perf_counter()
    decoded = np.concatenate([quantizer.decode(block).numpy() for block in codes])
    index = quantizer.to_faiss()
    return trained - start, encoded - trained, error(decoded, x), recall(index, x, queries, neighbours)


def theirs(x, rows, queries, neighbours, num_codebooks) -> tuple[float, float, float, float]:
    start = time.perf_counter()
    index = faiss.IndexPQ(x.shape[1], num_codebooks, 8)
    index.train(x[rows])
    trained = time.perf_counter()
    codes = index.pq.compute_codes(x)
    encoded = time.perf_counter()
    return trained - start, encoded - trained, error(index.pq.decode(codes), x), recall(index, x, queries, neighbours)


def error(decoded: np.ndarray, x: np.ndarray) -> float:
    return float(((decoded - x) ** 2).mean())


def recall(index, x, queries, neighbours) -> float:
    index.add(x)
    _, found = index.search(queries, NEIGHBOURS)
    return float(np.mean([len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(found, neighbours, strict=True)]))


if __name__ == "__main__":
    main()
