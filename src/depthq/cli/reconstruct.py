"""Draw originals above what the model makes of them.

examples:
  depthq reconstruct runs/demo --data bundled --out grid.png
  depthq reconstruct runs/photos --data my-photos/ --images 32 --out grid.png
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jsonargparse import ArgumentParser

from depthq.cli.model_and_data import BATCH_SIZE, ModelAndData, add_model_and_data, load, model_and_data
from depthq.evaluation import image_grid, reconstruct
from depthq.files import replacing


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    images: int
    out: Path


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser)
    parser.add_argument("--images", type=int, default=16, help="how many of the first images")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    options = parser.parse_args(arguments)
    if options.images < 1:
        raise ValueError(f"images must be at least 1; got {options.images}")
    return Settings(model_and_data(options), options.images, options.out)


def run(settings: Settings) -> None:
    model, batches = load(settings.source)
    whole_batches = list(islice(batches, -(-settings.images // BATCH_SIZE)))  # as encode sees them
    originals = torch.cat(whole_batches)[: settings.images]
    ours = torch.cat([reconstruct(model, images) for images in whole_batches])[: settings.images]
    with replacing(settings.out) as file:
        image_grid(originals.cpu(), ours.cpu()).save(file, "PNG")
    print(f"{settings.out}: {len(originals)} images, originals above")
