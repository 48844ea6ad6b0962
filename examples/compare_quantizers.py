"""The same auto-encoder with our quantizers and with those of vector-quantize-pytorch, at the same number of bits.

    pip install "depthq[studies]"
    python examples/compare_quantizers.py                  # a few minutes per quantizer on two cores
    python examples/compare_quantizers.py --smoke          # seconds: checks that everything runs

Trains on the bundled photos and prints, per quantizer, the squared error (normalised space) on photos it has not seen
and the share of codes in use. `studies.dq_paper.fsq.Adapter`, with which LFQ is added here, is all that a quantizer
from elsewhere needs to become part of a DQ-AE.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from vector_quantize_pytorch import LFQ

from depthq import DQAE, DQAEConfig
from depthq.data import evaluation_loader, open_images, training_loader
from depthq.measure import measure
from depthq.models import QUANTIZERS
from depthq.training import paper_objective

sys.path.insert(0, str(Path(__file__).parents[1]))  # for studies/
from studies.dq_paper.fsq import Adapter


def lfq(config: DQAEConfig, level: int) -> Adapter:
    dim = config.num_codebooks * config.codebook_dim
    peer = LFQ(
        dim=dim,
        codebook_size=config.level_sizes[level],
        num_codebooks=config.num_codebooks,
        keep_num_codebooks_dim=True,
    )
    return Adapter(peer, dim)


QUANTIZERS["lfq"] = lfq  # FSQ is there, by studies.dq_paper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--smoke", action="store_true", help="two steps of a narrow network")
    args = parser.parse_args()
    width = (8, 16) if args.smoke else (64, 128)
    print("quantizer   bits per image   squared error (normalised)   usage")
    for name in ("depthwise", "residual", "shared", "fsq", "lfq"):
        model = train(DQAEConfig(quantizer=name, channels=width), steps=2 if args.smoke else args.steps)
        photos = evaluation_loader(open_images("bundled", "test"), batch_size=64, limit=32 if args.smoke else 1024)
        result = measure(model.eval(), photos)
        usage = torch.tensor(result.levels[0].usage).mean()
        bits = bits_per_image(model)
        print(f"{name:9}{bits:17.0f}{result.mse_normalized:29.4f}{usage:8.1%}", flush=True)


def train(config: DQAEConfig, *, steps: int) -> DQAE:
    torch.manual_seed(0)
    model = DQAE(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for images in training_loader(open_images("bundled", "train"), batch_size=64, num_steps=steps, seed=0):
        optimizer.zero_grad()
        paper_objective(model, images, model(images)).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def bits_per_image(model: DQAE) -> float:
    images = next(iter(evaluation_loader(open_images("bundled", "test"), batch_size=1, limit=1)))
    return model.encode(images).num_bits()


if __name__ == "__main__":
    main()
