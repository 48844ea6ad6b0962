"""Draw images from a prior over codes.

examples:
  depthq sample runs/demo --images 64 --out samples.png
  depthq sample runs/cifar --temperature 0.9 --top-p 0.95 --out samples.png
  depthq sample runs/two-levels --level-0-of photo.png --images 8 --out completed.png

Codes are drawn from MODEL/prior, which depthq prior trains; without one all codes are alike. Pixels are the decoder's
mean, or drawn from its likelihood with --draw_pixels (by the causal head, where the model has one).
"""

import math
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from depthq.cli.model_and_data import MODEL_HELP, add_model, prior_command
from depthq.cli.paths import user_path
from depthq.files import check_is_new, replacing
from depthq.pixels import image_grid
from depthq.priors import CodePrior, UniformPrior
from depthq.runs import is_run, load_model, load_prior, load_run_settings

if TYPE_CHECKING:
    from torch import Tensor

    from depthq.models import DQAE

_DEFAULT_IMAGE_SIZE = 32


@dataclass(frozen=True)
class Settings:
    model: Path
    images: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    draw_pixels: bool
    level_0_of: Path | None
    background: str | None
    out: Path
    device: str


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model(parser, help=MODEL_HELP)
    parser.add_argument("--images", type=PositiveInt, default=64, help="how many")
    parser.add_argument(
        "--temperature", type=NonNegativeFloat, default=1.0, help="below 1: likelier codes; 0: likeliest"
    )
    parser.add_argument("--top_k", type=PositiveInt, help="of each code only the likeliest so many")
    parser.add_argument("--top_p", type=float, help="only the likeliest codes that together reach this probability")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="fixes the draw")
    parser.add_argument("--draw_pixels", action="store_true", help="draw pixels too, rather than show their mean")
    parser.add_argument(
        "--level_0_of", type=user_path, help="an image whose coarsest codes are kept: only finer are drawn"
    )
    parser.add_argument("--background", help="the colour that it is laid on where it is transparent, such as white")
    parser.add_argument("--out", type=user_path, required=True, help="the PNG file to write")
    options = parser.parse_args(arguments)
    if options.top_p is not None and not 0 < options.top_p <= 1:
        raise ValueError(f"--top-p must lie in (0, 1]; got {options.top_p}")
    if options.background and not options.level_0_of:
        raise ValueError("--background must come with --level-0-of, which names an image; leave it out")
    return Settings(**{field.name: options[field.name] for field in fields(Settings)})


def run(settings: Settings) -> None:
    check_is_new(settings.out)
    model = load_model(settings.model).to(settings.device)
    if settings.level_0_of is not None and len(model.codebook_sizes) == 1:
        raise ValueError(
            f"--level-0-of must come with a model of several levels; got {settings.model} of a single one; leave it out"
        )
    prior = _prior(settings.model, model).to(settings.device)
    coarse, grids = [], None
    if settings.level_0_of is not None:
        kept = _level_0(model, settings.level_0_of, settings.background)
        coarse = [kept.expand(settings.images, -1, -1, -1)]
        grids = [(kept.shape[2] * 2**level, kept.shape[3] * 2**level) for level in range(len(model.codebook_sizes))]
    codes = prior.sample(
        settings.images,
        settings.temperature,
        settings.top_k,
        settings.top_p,
        settings.seed,
        grids=grids,
        coarse=coarse,
    ).to(settings.device)
    generator = torch.Generator(settings.device).manual_seed(settings.seed)
    images = (model.sample(codes, generator) if settings.draw_pixels else model.decode(codes)).cpu()
    with replacing(settings.out) as file:
        image_grid(images, columns=math.ceil(len(images) ** 0.5)).save(file, "PNG")
    print(f"{settings.out}: {len(images)} images")


def _prior(folder: Path, model: "DQAE") -> CodePrior:
    prior = load_prior(folder)
    if prior is not None:
        return prior
    if not model.codebook_sizes:
        raise ValueError(f"{folder} must be a model with codes; got one without a quantizer; train one that has")
    warnings.warn(f"{folder} has no prior: all codes are alike; train one with: {prior_command(folder)}", stacklevel=2)
    trained = load_run_settings(folder) if is_run(folder) else {}
    size = trained.get("image_size") or max(_DEFAULT_IMAGE_SIZE, model.config.image_multiple)
    finest = size // 2 ** len(model.config.channels)
    num_finer = range(len(model.codebook_sizes) - 1, -1, -1)
    return UniformPrior(model.codebook_sizes, [(finest // 2**finer,) * 2 for finer in num_finer])


def _level_0(model: "DQAE", path: Path, background: str | None) -> "Tensor":
    """The coarsest codes int64 (1, M, H, W) of an image file, whose edges are cut to what the model takes."""
    from depthq.data.reading import EncodedImage, check_background, read_pixels

    check_background(background)
    if not path.is_file():
        raise ValueError(f"--level-0-of must be an image file; there is none at {path}; check the path")
    image = read_pixels(EncodedImage(str(path), str(path)), model.config.image_channels, background)
    multiple = model.config.image_multiple
    height, width = (side // multiple * multiple for side in image.shape[1:])
    pixels = torch.from_numpy(image[:, :height, :width].copy())[None]
    return model.encode(pixels.to(model.device)).levels[0]
