"""diffusers' `VQModel` on CIFAR-10 with its own quantizer and with ours, at the same bits per position.

    python examples/diffusers_cifar10.py --data cifar10/ --steps 1000

The network is diffusers' own, 8 x 8 positions of 16 channels. 12 bits per position: one codebook of 4,096 codes, theirs
or ours, or two of 64, depthwise.
"""

import argparse
import time

import torch
from diffusers import VQModel

import depthq
from depthq.compat.diffusers import VQModelQuantizer, swap_quantizer
from depthq.data import evaluation_loader, open_images, training_loader
from depthq.pixels import normalize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="as in depthq train")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    quantizers = {
        "diffusers, K = 4,096": lambda: None,
        "ours, K = 4,096": lambda: depthq.DepthwiseQuantizer(16, 1, 4096, decay=0.9),
        "ours, 2 x K = 64": lambda: depthq.DepthwiseQuantizer(16, 2, 64, decay=0.9),
    }
    print("quantizer               error (normalized)      codes used   seconds per step")
    for name, make in quantizers.items():
        for seed in range(args.seeds):
            error, used, seconds = train(make, args, seed)
            print(f"{name:24}{error:18.5f}{used:16.1%}{seconds:19.3f}", flush=True)


def train(make, args: argparse.Namespace, seed: int) -> tuple[float, float, float]:
    """As `test`, and the seconds per step."""
    torch.manual_seed(seed)
    model = VQModel(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        latent_channels=16,
        num_vq_embeddings=4096,
        mid_block_add_attention=False,
    )
    quantizer = make()
    if quantizer is not None:
        swap_quantizer(model, quantizer)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-4)
    loader = training_loader(
        open_images(args.data, "train"), batch_size=args.batch_size, num_steps=args.steps, seed=seed
    )
    start = time.perf_counter()
    for images in loader:
        images = normalize(images)
        out = model(images)
        optimizer.zero_grad()
        ((out.sample - images).square().mean() + out.commit_loss).backward()
        optimizer.step()
    seconds = (time.perf_counter() - start) / args.steps
    return *test(model.eval(), args.data), seconds


@torch.no_grad()
def test(model: VQModel, data: str) -> tuple[float, float]:
    """Mean squared error of test images, and the share of codes that they use, mean over codebooks."""
    errors, codes = [], []
    for images in evaluation_loader(open_images(data, "test"), batch_size=100, limit=2000):
        images = normalize(images)
        latents = model.encode(images).latents
        _, _, (_, _, indices) = model.quantize(latents)
        errors.append((model.decode(latents).sample - images).square().mean((1, 2, 3)))
        codes.append(indices.view(len(indices), -1))
    own = isinstance(model.quantize, VQModelQuantizer)
    sizes = model.quantize.quantizer.codebook_sizes if own else [model.quantize.n_e]
    used = [len(column.unique()) / size for column, size in zip(torch.cat(codes).T, sizes, strict=True)]
    return torch.cat(errors).mean().item(), sum(used) / len(used)


if __name__ == "__main__":
    main()
