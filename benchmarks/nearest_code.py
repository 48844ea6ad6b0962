"""How fast the nearest codewords are found, beside the limit (one matrix product) and the libraries people use.

    python benchmarks/nearest_code.py            # time, peak memory, growth over two decades of N, M, K, D as a plot
    python benchmarks/nearest_code.py --smoke    # seconds: checks that everything runs, draws nothing

The limit is one `torch.bmm` of all the scores, allocation included, as anybody would call it: it does not even look
for the smallest. All contestants are asserted to find the same codewords before any is timed. On a machine with a
CUDA device everything runs there, less faiss; nothing has been measured on one yet.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch
from measure import environment, peak_extra_bytes, print_rows, race
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from depthq.ops import nearest_code, which_backend

SHAPES = [(8192, 10, 512, 64), (65536, 4, 1024, 32)]
"""(N, M, K, D)."""

GROWTH_BASE = {"N": 4096, "M": 2, "K": 256, "D": 32}
GROWTH = {
    "N": [1024, 4096, 16384, 102400],
    "M": [1, 4, 16, 100],
    "K": [32, 128, 512, 3200],
    "D": [8, 32, 128, 800],
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLOT = Path(__file__).parents[1] / "docs" / "img" / "bench-nearest-code-growth.png"


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(0)
    if args.memory_of:
        print(memory_bytes(args.memory_of, *args.shape))
        return
    for shape in [(300, 2, 16, 8)] if args.smoke else SHAPES:
        compare(shape, rounds=2 if args.smoke else args.rounds)
    if not args.smoke:
        draw_growth(args.rounds)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; the medians count")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, two rounds")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # the process that measures its own memory
    parser.add_argument("--shape", type=int, nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_inputs(num_rows: int, num_codebooks: int, size: int, dim: int) -> tuple[Tensor, Tensor]:
    """Latents (M, N, D), a strided view as in a quantizer, and codebooks (M, K, D)."""
    latents = torch.randn(num_rows, num_codebooks, dim, device=DEVICE).transpose(0, 1)
    return latents, torch.randn(num_codebooks, size, dim, device=DEVICE)


def make_contestants(latents: Tensor, codebooks: Tensor) -> dict[str, Callable[[], object]]:
    """The limit first, then ours, then the peers. All of them return codes, less the limit."""
    twice = codebooks[:, : -(-codebooks.shape[1] // 2)].repeat(1, 2, 1)
    contestants: dict[str, Callable[[], object]] = {
        "torch.bmm of the scores (the limit)": lambda: torch.bmm(latents, codebooks.transpose(1, 2)),
        f"depthq nearest_code, {which_backend(DEVICE)}": lambda: nearest_code(latents, codebooks),
        "depthq nearest_code, reference (float64)": lambda: nearest_code(latents, codebooks, backend="reference"),
        "depthq, duplicated codewords (all float64)": lambda: nearest_code(latents, twice),
        "vector-quantize-pytorch, eval": make_vector_quantize(latents, codebooks),
    }
    if DEVICE == "cpu":
        contestants["faiss ProductQuantizer.compute_codes"] = make_faiss(latents, codebooks)
    return contestants


def make_faiss(latents: Tensor, codebooks: Tensor) -> Callable[[], np.ndarray]:
    num_codebooks, size, dim = codebooks.shape
    quantizer = faiss.ProductQuantizer(num_codebooks * dim, num_codebooks, size.bit_length() - 1)
    faiss.copy_array_to_vector(codebooks.numpy().ravel(), quantizer.centroids)
    rows = latents.transpose(0, 1).flatten(1).numpy()
    faiss.omp_set_num_threads(torch.get_num_threads())
    nearest = quantizer.decode(quantizer.compute_codes(rows)).reshape(len(rows), num_codebooks, dim)
    assert_same(torch.from_numpy(nearest).transpose(0, 1), latents, codebooks)
    return lambda: quantizer.compute_codes(rows)


def make_vector_quantize(latents: Tensor, codebooks: Tensor) -> Callable[[], Tensor]:
    num_codebooks, size, dim = codebooks.shape
    quantizer = VectorQuantize(
        num_codebooks * dim, size, codebook_dim=dim, heads=num_codebooks, separate_codebook_per_head=True
    )
    quantizer = quantizer.eval().to(codebooks.device)
    quantizer._codebook.embed.data.copy_(codebooks)
    rows = latents.transpose(0, 1).flatten(1)[None]

    @torch.no_grad()
    def search() -> Tensor:
        return quantizer(rows)[1][0].T

    assert_same(codebooks.gather(1, search()[..., None].expand(-1, -1, dim)), latents, codebooks)
    return search


def assert_same(nearest: Tensor, latents: Tensor, codebooks: Tensor) -> None:
    """At most one vector in a thousand, a near tie to float32, may have another codeword than ours."""
    codes = nearest_code(latents, codebooks)
    ours = codebooks.gather(1, codes[..., None].expand(-1, -1, codebooks.shape[2]))
    assert (ours == nearest).all(2).float().mean() > 0.999


def compare(shape: tuple[int, int, int, int], *, rounds: int) -> None:
    latents, codebooks = make_inputs(*shape)
    assert torch.equal(nearest_code(latents, codebooks), nearest_code(latents, codebooks, backend="reference"))
    timings = race(make_contestants(latents, codebooks), rounds=rounds)
    facts = {**dict(zip("NMKD", shape, strict=True)), "dtype": "float32", **environment(DEVICE)}
    print_rows("nearest codewords, N={} M={} K={} D={}".format(*shape), timings, facts)
    if DEVICE == "cpu":
        for name in ("depthq", "bmm"):
            command = [sys.executable, __file__, "--memory-of", name, "--shape", *map(str, shape)]
            peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(
                json.dumps(
                    {"name": f"{name}, memory beyond inputs and outputs", "MiB": round(peak / 2**20, 1), **facts}
                )
            )


def memory_bytes(name: str, *shape: int) -> int:
    """Peak memory of one search beyond its inputs and its codes, of this process."""
    run = {"depthq": nearest_code, "bmm": lambda x, c: torch.bmm(x, c.transpose(1, 2)).argmax(2)}[name]
    run(*make_inputs(64, *shape[1:]))  # loads libraries
    latents, codebooks = make_inputs(*shape)
    codes_bytes = 8 * latents.shape[0] * latents.shape[1]
    return peak_extra_bytes(lambda: run(latents, codebooks)) - codes_bytes


def draw_growth(rounds: int) -> None:
    """Time against each size; a straight line of slope 1 is linear growth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4), sharey=True, layout="constrained")
    for axis, (letter, values) in zip(axes, GROWTH.items(), strict=True):
        inputs = {value: make_inputs(*(GROWTH_BASE | {letter: value}).values()) for value in values}
        timings = race({str(value): partial(nearest_code, *inputs[value]) for value in values}, rounds=rounds)
        median = np.array([timing.median_ms for timing in timings.values()])
        axis.loglog(values, median, "o-", label="measured")
        axis.loglog(values, median[-1] * np.array(values) / values[-1], "--", color="gray", label="linear")
        others = ", ".join(f"{key}={value}" for key, value in GROWTH_BASE.items() if key != letter)
        axis.set(xlabel=letter, title=others)
        facts = {"growth_in": letter, "base": GROWTH_BASE, **environment(DEVICE)}
        print_rows(f"growth in {letter} ({others})", timings, facts)
    axes[0].set_ylabel("ms")
    axes[0].legend()
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=120)
    print(PLOT)


if __name__ == "__main__":
    main()
