"""Turn a file of codes back into images.

examples:
  depthq decode runs/demo codes.parquet --out decoded/
  depthq decode runs/photos codes.parquet --levels [0] --out coarse-only/

Images are PNG files under the names that they had, rows of a parquet file 00000000.png and on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt
from torch import Tensor

from depthq.cli.model_and_data import add_model
from depthq.cli.paths import user_path
from depthq.cli.pictures import save_by_name
from depthq.codes import CodesBatch
from depthq.files import new_folder
from depthq.models import DQAE
from depthq.runs import load_model


@dataclass(frozen=True)
class Settings:
    model: Path
    codes: Path
    levels: list[int] | None
    codebooks: int | None
    out: Path
    device: str


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model(parser)
    parser.add_argument("codes", type=user_path, help="what depthq encode wrote")
    parser.add_argument("--levels", type=list[int] | None, help="decode from these levels alone; 0 is the coarsest")
    parser.add_argument("--codebooks", type=PositiveInt, help="decode from the first so many codebooks of each level")
    parser.add_argument("--out", type=user_path, required=True, help="a new folder for the images")
    options = parser.parse_args(arguments)
    return Settings(options.model, options.codes, options.levels, options.codebooks, options.out, options.device)


def run(settings: Settings) -> None:
    from depthq.codes.file import read_codes  # here, with the rest that --help need not wait for

    model = load_model(settings.model).to(settings.device)
    if not settings.codes.exists():
        raise ValueError(f"{settings.codes} must be a file of codes; there is none; make one with depthq encode")
    batches = read_codes(settings.codes, model_fingerprint=model.fingerprint())
    with new_folder(settings.out) as folder:
        count = save_by_name(_decoded(model, batches, settings), folder)
    print(f"{settings.out}: {count} images")


def _decoded(model: DQAE, batches: Iterator[CodesBatch], settings: Settings) -> Iterator[tuple[str, Tensor]]:
    """Each image without its padding, and its name: its id, or its number in a file without ids."""
    from depthq.progress import progress

    count = 0
    for batch in progress(batches, unit="batch"):
        images = model.decode(batch.codes.to(settings.device), settings.levels, settings.codebooks).cpu()
        for index, image in enumerate(images):
            height, width = batch.sizes[index] if batch.sizes is not None else image.shape[1:]
            yield batch.ids[index] if batch.ids is not None else str(count), image[:, :height, :width]
            count += 1
