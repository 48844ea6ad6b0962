"""How long a prior takes to draw the codes of a batch, over the number of positions and for both factorizations.

    python benchmarks/sampling.py                 # draws sampling.png too, with --plot
    python benchmarks/sampling.py --smoke         # seconds: checks that everything runs

An untrained transformer of the default size, 64 images, M = 5, K = 128. Keys and values are kept, so that a position
costs the same however many came before, but for the attention to them.
"""

import argparse
import json
import time
from pathlib import Path

from measure import environment

from depthq.priors import TransformerPrior

SIDES = (4, 8, 12, 16, 24)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--plot", type=Path, help="where to draw the figures")
    parser.add_argument("--smoke", action="store_true", help="two small grids")
    args = parser.parse_args()
    sides = (2, 4) if args.smoke else SIDES
    seconds = {kind: [measure(kind, side, args.images) for side in sides] for kind in ("parallel", "sequential")}
    for kind, of_kind in seconds.items():
        for side, value in zip(sides, of_kind, strict=True):
            row = {"name": f"sample, {kind}", "positions": side * side, "seconds": value, "images": args.images}
            print(json.dumps({**row, "ms_per_position": 1e3 * value / side**2, **environment()}))
    if args.plot:
        draw(args.plot, sides, seconds, args.images)


def measure(factorization: str, side: int, images: int) -> float:
    """Seconds for the codes of all images."""
    prior = TransformerPrior(((128,) * 5,), ((side, side),), factorization).eval()  # type: ignore[arg-type]
    prior.sample(images, grids=((1, 1),))
    start = time.perf_counter()
    prior.sample(images)
    return time.perf_counter() - start


def draw(path: Path, sides: tuple[int, ...], seconds: dict[str, list[float]], images: int) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for kind, of_kind in seconds.items():
        axes.plot([side * side for side in sides], of_kind, "o-", label=kind)
    axes.set(xlabel="positions", ylabel=f"seconds for {images} images", xlim=0, ylim=0)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
