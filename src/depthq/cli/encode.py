"""Turn images into a file of codes, one row per image.

examples:
  depthq encode runs/demo --data bundled --out codes.parquet
  depthq encode runs/photos --data my-photos/ --split train --out codes.parquet

Takes all images of the data, those for training and those for testing together, unless --split names a part: image
files in the order of their paths, rows as they come; whole and of any size, unless --crop says otherwise. Beside its
codes each image keeps its id (path in the folder, or row), its height and width, and its label where the data has a
column of that name. What the first images take as codes stands beside what they take as PNG, and as JPEG of equal PSNR.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from depthq.cli.compared import Compared
from depthq.cli.model_and_data import (
    ModelAndData,
    add_model_and_data,
    batches_of,
    count_all_images,
    model_and_data,
    open_model_and_images,
)
from depthq.cli.paths import user_path
from depthq.files import check_is_new
from depthq.models import DQAE
from depthq.pixels import pad_to_multiple
from depthq.runs import load_prior

if TYPE_CHECKING:
    from depthq.codes.file import CodesBatch
    from depthq.data import ImageBatch


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    limit: int | None
    out: Path


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser, split="all", labels=True)
    parser.add_argument("--limit", type=PositiveInt, help="only the first so many images")
    parser.add_argument("--out", type=user_path, required=True, help="the parquet file to write")
    options = parser.parse_args(arguments)
    return Settings(model_and_data(options), options.limit, options.out)


def run(settings: Settings) -> None:
    from depthq.codes.file import write_codes

    check_is_new(settings.out)
    model, images = open_model_and_images(settings.source)
    label_type, compared = images.label_type, Compared(model, load_prior(settings.source.model))
    batches = _encoded(
        model, batches_of(images, settings.source, limit=settings.limit), label_type is not None, compared
    )
    count = write_codes(settings.out, batches, model_fingerprint=model.fingerprint(), label_type=label_type)
    on_disk = settings.out.stat().st_size * 8 / count
    skipped = f", {images.num_skipped} bad ones skipped" if images.num_skipped else ""
    print(
        f"{settings.out}: codes of {count} of {count_all_images(settings.source)} images "
        f"(--split {settings.source.split}{skipped}); {on_disk:.0f} bits per image on disk"
    )
    print(compared.sentence())


def _encoded(
    model: DQAE, batches: "Iterable[ImageBatch]", has_labels: bool, compared: Compared
) -> "Iterator[CodesBatch]":
    from depthq.codes.file import CodesBatch

    for batch in batches:
        codes = model.encode(pad_to_multiple(batch.images.to(model.device), model.config.image_multiple))
        compared.update(batch.images, codes)
        ids = [origin.id for origin in batch.origins]
        labels = [origin.label for origin in batch.origins] if has_labels else None
        sizes = [(batch.images.shape[2], batch.images.shape[3])] * len(batch)
        yield CodesBatch(codes.to("cpu"), ids, labels, sizes)
