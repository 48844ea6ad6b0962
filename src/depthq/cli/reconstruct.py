"""Draw originals above what the model makes of them.

examples:
  depthq reconstruct runs/demo --data bundled --out grid.png
  depthq reconstruct runs/photos --data my-photos/ --images 32 --out grid.png
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt
from torch import Tensor

from depthq.cli.model_and_data import ModelAndData, add_model_and_data, load, model_and_data
from depthq.files import check_is_new, replacing
from depthq.models import DQAE
from depthq.pixels import image_grid


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    images: int
    out: Path


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser)
    parser.add_argument("--images", type=PositiveInt, default=16, help="how many of the first images")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    options = parser.parse_args(arguments)
    return Settings(model_and_data(options), options.images, options.out)


def run(settings: Settings) -> None:
    check_is_new(settings.out)
    model, batches = load(settings.source)
    rows = [
        torch.cat(row)[: settings.images].cpu() for row in zip(*_pairs(model, batches, settings.images), strict=True)
    ]
    with replacing(settings.out) as file:
        image_grid(*rows).save(file, "PNG")
    print(f"{settings.out}: {len(rows[0])} images, originals above")


def _pairs(model: DQAE, batches: Iterator[Tensor], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Originals and reconstructions, in whole batches as encode sees them, of at least `count` images if there are."""
    for images in batches:
        yield images, model.reconstruct(images)
        count -= len(images)
        if count <= 0:
            return
