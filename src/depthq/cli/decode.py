"""Turn a file of codes back into images.

examples:
  depthq decode runs/demo codes.parquet --out decoded/
  depthq decode runs/photos codes.parquet --levels [0] --out coarse-only/
"""

from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser

from depthq.cli.model_and_data import add_model
from depthq.files import new_folder
from depthq.pixels import to_picture
from depthq.runs import load_model


@dataclass(frozen=True)
class Settings:
    model: Path
    codes: Path
    levels: list[int] | None
    out: Path
    device: str


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model(parser)
    parser.add_argument("codes", type=Path, help="what depthq encode wrote")
    parser.add_argument("--levels", type=list[int] | None, help="decode from these levels alone; 0 is the coarsest")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the images, 00000000.png and on")
    options = parser.parse_args(arguments)
    return Settings(options.model, options.codes, options.levels, options.out, options.device)


def run(settings: Settings) -> None:
    from tqdm import tqdm

    from depthq.codes.file import read_codes  # here, with the rest that --help need not wait for

    model = load_model(settings.model).to(settings.device)
    if not settings.codes.is_file():
        raise ValueError(f"{settings.codes} must be a file of codes; there is none; make one with depthq encode")
    batches = read_codes(settings.codes, model_fingerprint=model.fingerprint())
    count = 0
    with new_folder(settings.out) as folder:
        for batch in tqdm(batches, unit="batch", delay=2, leave=False):
            for image in model.decode(batch.codes.to(settings.device), settings.levels).cpu():
                to_picture(image).save(folder / f"{count:08d}.png")
                count += 1
    print(f"{settings.out}: {count} images")
