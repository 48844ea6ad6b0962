"""Turn images into a file of codes, one row per image.

examples:
  depthq encode runs/demo --data bundled --out codes.parquet
  depthq encode runs/photos --data my-photos/ --split train --out codes.parquet
"""

from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from depthq.cli.model_and_data import ModelAndData, add_model_and_data, codes_of, load, model_and_data
from depthq.files import check_is_new


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    limit: int | None
    out: Path


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser)
    parser.add_argument("--limit", type=PositiveInt, help="only the first so many images")
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    options = parser.parse_args(arguments)
    return Settings(model_and_data(options), options.limit, options.out)


def run(settings: Settings) -> None:
    from depthq.codes.file import write_codes  # here, as --help need not wait for it

    check_is_new(settings.out)
    model, batches = load(settings.source, limit=settings.limit)
    images = write_codes(settings.out, codes_of(model, batches), model_fingerprint=model.fingerprint())
    on_disk = settings.out.stat().st_size * 8 / images
    print(
        f"{settings.out}: codes of {images} images, those of --split {settings.source.split} alone; "
        f"{on_disk:.0f} bits per image on disk"
    )
