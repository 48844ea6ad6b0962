"""Show levels, code shapes, bits and parameters of a model.

examples:
  depthq info runs/demo
  depthq info photos-small --image-size 64 --json
  depthq info --list
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from depthq.cli.model_and_data import add_model
from depthq.models import DQAE
from depthq.runs import is_run, load_model, load_run_settings
from depthq.units import bits_per_dim, bits_per_pixel
from depthq.weights import SHIPPED, shipped_folder

DEFAULT_IMAGE_SIZE = 32


@dataclass(frozen=True)
class Settings:
    model: Path | None
    """None: list the shipped ones."""
    image_size: int | None
    json: bool


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model(parser, is_required=False)
    parser.add_argument("--list", action="store_true", help="list the models that come with the package")
    parser.add_argument(
        "--image_size",
        type=PositiveInt,
        help=f"side of the images; by default the run's, else {DEFAULT_IMAGE_SIZE} or what the model takes",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    if options.list == (options.model is not None):
        raise ValueError("a model must be named, or --list given, not both; try: depthq info --list")
    return Settings(options.model, options.image_size, options.json)


def run(settings: Settings) -> None:
    if settings.model is None:
        shipped = [
            {"name": name, "about": about, "folder": str(shipped_folder(name))} for name, about in SHIPPED.items()
        ]
        print(
            json.dumps(shipped)
            if settings.json
            else "\n".join(f"{each['name']:18} {each['about']}" for each in shipped)
        )
        return
    model = load_model(settings.model)
    trained = load_run_settings(settings.model) if is_run(settings.model) else {}
    usual = max(DEFAULT_IMAGE_SIZE, model.config.image_multiple)
    facts = _facts(model, settings.image_size or trained.get("image_size") or usual)
    print(json.dumps(facts) if settings.json else _table(facts))


def _facts(model: DQAE, image_size: int) -> dict:
    image_shape = (model.config.image_channels, image_size, image_size)
    image = torch.zeros(1, *image_shape, dtype=torch.uint8)
    codes = model.encode(image) if model.codebook_sizes else None
    bits = codes.num_bits() if codes else None
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "image_shape": list(image_shape),
        "levels": [
            {"code_shape": list(level.shape[1:]), "codebook_sizes": list(sizes)}
            for level, sizes in zip(codes.levels, codes.codebook_sizes, strict=True)
        ]
        if codes
        else [],
        "code_bits_per_image": bits,
        "code_bits_per_pixel": None if bits is None else bits_per_pixel(bits, image_shape),
        "code_bits_per_dim": None if bits is None else bits_per_dim(bits, image_shape),
        "config": asdict(model.config),
    }


def _table(facts: dict) -> str:
    lines = [
        f"parameters   {facts['parameters']:,}",
        f"image        {' x '.join(map(str, facts['image_shape']))}",
    ]
    for index, level in enumerate(facts["levels"]):
        sizes = level["codebook_sizes"]
        books, height, width = level["code_shape"]
        size = sizes[0] if len(set(sizes)) == 1 else sizes
        lines.append(f"level {index}      {height} x {width} positions x {books} codebooks of K = {size}")
    if facts["code_bits_per_image"] is not None:
        lines.append(
            f"codes        {facts['code_bits_per_image']:.0f} bits per image, "
            f"{facts['code_bits_per_pixel']:.3f} bits per pixel, {facts['code_bits_per_dim']:.3f} bits per dim"
        )
    shown = ["quantizer", "likelihood"]
    if facts["config"]["quantizer"] not in ("scalar", "binary", "none"):  # these take as many dimensions as K needs
        shown.append("codebook_dim")
    settings = ", ".join(f"{name} {facts['config'][name]}" for name in shown)
    return "\n".join([*lines, f"model        {settings}, channels {list(facts['config']['channels'])}"])
