"""What the quantizer costs a training step: the `small` preset with each quantizer, and without one.

    python benchmarks/train_step.py            # images/s, ratio to quantizer="none", peak memory
    python benchmarks/train_step.py --smoke    # seconds: checks that everything runs

A step is forward, backward and AdamW on a batch of 64 images of 32 x 32, at the precision that `depthq train` takes
on this machine. All contestants see the same images.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from measure import environment, peak_extra_bytes, print_rows, race

from depthq.models import DQAE, PRESETS
from depthq.training import TRAINING_PRESETS, default_precision, paper_objective

BATCH = TRAINING_PRESETS["small"].batch_size
QUANTIZERS = ["none", "depthwise", "shared", "residual"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    args = parse_arguments()
    if args.memory_of:
        print(memory_bytes(args.memory_of))
        return
    preset = "tiny" if args.smoke else "small"
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, device=DEVICE)
    steps = {name: partial(make_step(name, preset), images) for name in QUANTIZERS}
    timings = race(steps, rounds=2 if args.smoke else args.rounds)
    facts = {"preset": preset, "batch": BATCH, "precision": default_precision(), **environment(DEVICE)}
    print_rows("one training step", timings, facts)
    for name, timing in timings.items():
        print(f"{name:12} {1e3 * BATCH / timing.median_ms:8.0f} images/s")
    if DEVICE == "cpu" and not args.smoke:
        for name in ("none", "depthwise"):
            command = [sys.executable, __file__, "--memory-of", name]
            peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(json.dumps({"name": f"{name}, peak memory of a step", "MiB": round(peak / 2**20, 1), **facts}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="interleaved rounds; the medians count")
    parser.add_argument("--smoke", action="store_true", help="the tiny preset, two rounds")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # the process that measures its own memory
    return parser.parse_args()


def make_step(quantizer: str, preset: str) -> Callable[[torch.Tensor], None]:
    torch.manual_seed(0)
    model = DQAE(replace(PRESETS[preset], quantizer=quantizer)).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    mixed = default_precision() != "32-true"

    def step(images: torch.Tensor) -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=mixed):
            loss = paper_objective(model, images, model(images)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def memory_bytes(quantizer: str) -> int:
    """Peak memory that a training step adds to this process, after two smaller ones."""
    step = make_step(quantizer, "small")
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    for _ in range(2):
        step(images[:2])
    return peak_extra_bytes(lambda: step(images))


if __name__ == "__main__":
    main()
