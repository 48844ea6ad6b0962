"""What each quantizer costs in a whole network, and how often a first draw finds all clusters.

    python benchmarks/quantizers.py            # about a minute on one thread
    python benchmarks/quantizers.py --smoke    # checks that everything runs

Steps: forward, backward and AdamW of the auto-encoder of docs/which-quantizer.md, 64 random images, all in turn. Draws:
8 separated clusters, 8 codewords, 100 steps, 10 seeds, by k-means++ and, as it would be without, by plain draws; rare
codes are re-drawn in both.
"""

import argparse

import torch
from measure import environment, print_rows, race

from depthq import DQAE, DepthwiseQuantizer, DQAEConfig
from depthq.training import paper_objective

QUANTIZERS = {
    "depthwise": {},
    "depthwise, cosine": {"distance": "cosine"},
    "depthwise, rotation": {"rotation_trick": True},
    "residual, D = 20": {"quantizer": "residual", "codebook_dim": 20},
    "scalar": {"quantizer": "scalar"},
    "binary": {"quantizer": "binary"},
    "shared": {"quantizer": "shared"},
}
SEEDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one round, two images")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (2 if args.smoke else 64, 3, 32, 32), dtype=torch.uint8)
    steps = {
        name: training_step(DQAEConfig(channels=(32, 64), **fields), images) for name, fields in QUANTIZERS.items()
    }
    rows = race(steps, rounds=1 if args.smoke else 8, patience_s=600)
    print_rows("one training step", rows, environment("cpu"))
    for name, is_plain in (("k-means++", False), ("plain draws", True)):
        found = sum(finds_all(seed, is_plain) for seed in range(SEEDS))
        print(f"{name}: all 8 clusters found in {found} of {SEEDS} seeds")


def training_step(config: DQAEConfig, images: torch.Tensor):
    model = DQAE(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        paper_objective(model, images, model(images)).loss.backward()
        optimizer.step()

    return step


def finds_all(seed: int, is_plain: bool) -> bool:
    torch.manual_seed(seed)
    centres = 20 * torch.randn(8, 4)
    quantizer = DepthwiseQuantizer(4, 1, 8, axis=-1, decay=0.9)
    if is_plain:
        quantizer.state._may_be_first = False
    for _ in range(100):
        quantizer(centres[torch.randint(8, (256,))] + 0.1 * torch.randn(256, 4))
    return bool((torch.cdist(centres, quantizer.codebooks[0]).amin(1) < 1).all())


if __name__ == "__main__":
    main()
