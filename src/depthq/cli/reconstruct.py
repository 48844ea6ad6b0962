"""Draw originals beside what the model makes of them, and say what that costs.

examples:
  depthq reconstruct photos-small --data my-photos/ --out photos.png
  depthq reconstruct runs/demo --data bundled --images 32 --out grid.png

Images are whole unless --crop says otherwise: each beside its reconstruction where they are larger than 64 pixels,
else in a grid, originals above. Of those over 1,024 pixels the picture shows smaller copies. What the codes cost stands
beside what the same images take as PNG, and as JPEG of equal PSNR.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt
from torch import Tensor

from depthq.cli.compared import Compared
from depthq.cli.model_and_data import ModelAndData, add_model_and_data, load, model_and_data
from depthq.cli.paths import user_path
from depthq.files import check_is_new, replacing
from depthq.models import DQAE
from depthq.pixels import image_grid, pad_to_multiple, side_by_side
from depthq.runs import load_prior

_GRID_SIDE = 64
"""Pixels; larger images stand side by side."""


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    images: int
    out: Path


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser)
    parser.add_argument("--images", type=PositiveInt, default=16, help="how many of the first images")
    parser.add_argument("--out", type=user_path, required=True, help="the picture to write, PNG")
    options = parser.parse_args(arguments)
    return Settings(model_and_data(options), options.images, options.out)


def run(settings: Settings) -> None:
    check_is_new(settings.out)
    model, batches = load(settings.source)
    compared = Compared(model, load_prior(settings.source.model) if model.codebook_sizes else None)
    pairs = list(_pairs(model, batches, settings.images, compared))
    if not pairs:
        raise ValueError("images must hold at least one image; got none")
    count = sum(len(originals) for originals, _ in pairs)
    sizes = {originals.shape[1:] for originals, _ in pairs}
    if len(sizes) == 1 and max(sizes.pop()[1:]) <= _GRID_SIDE:
        picture, where = image_grid(*map(torch.cat, zip(*pairs, strict=True))), "above"
    else:
        picture, where = side_by_side((a, b) for pair in pairs for a, b in zip(*pair, strict=True)), "on the left"
    with replacing(settings.out) as file:
        picture.save(file, "PNG")
    print(f"{settings.out}: {count} images, originals {where}")
    if model.codebook_sizes:
        print(compared.sentence())


def _pairs(model: DQAE, batches: Iterator[Tensor], count: int, compared: Compared) -> Iterator[tuple[Tensor, Tensor]]:
    """Originals and reconstructions, made in whole batches as encode sees them, of the first `count` images."""
    for images in batches:
        padded = pad_to_multiple(images.to(model.device), model.config.image_multiple)
        if model.codebook_sizes:
            codes = model.encode(padded)
            compared.update(images[:count], codes[:count])
            reconstructed = model.decode(codes)
        else:
            reconstructed = model.reconstruct(padded)
        yield images[:count], reconstructed.cpu()[:count, :, : images.shape[2], : images.shape[3]]
        count -= len(images)
        if count <= 0:
            return
