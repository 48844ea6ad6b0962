"""Turn images into one small file: their codes, or every pixel.

examples:
  depthq compress runs/cifar photo.png --out photo.dq
  depthq compress runs/cifar my-photos/ --lossless --out photos.dq
  depthq compress runs/cifar test.parquet --lossless --out test.dq --json

Images are files, folders of them, or parquet or tar files, and are taken whole, whatever their size. A file of several
keeps their names: paths in the folder, or 00000000 and on for rows; a single image is called as the file is. Codes are
coded under MODEL/prior, if there is one. A lossless file is decoded and compared before it is kept; of transparent
images, which need a --background, it keeps what they look like there.
"""

import json
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jsonargparse import ArgumentParser

from depthq.cli.model_and_data import add_model, add_reading, is_shipped, prior_command
from depthq.cli.paths import user_path
from depthq.files import check_is_new, replacing
from depthq.runs import load_model, load_prior

if TYPE_CHECKING:
    from torch import Tensor

    from depthq.coding import Archive
    from depthq.data.reading import EncodedImage

_NUM_NAMED = 3
"""Of the images that are left out."""


@dataclass(frozen=True)
class Settings:
    model: Path
    images: list[Path]
    out: Path
    lossless: bool
    json: bool
    on_bad_image: Literal["raise", "skip"]
    background: str | None
    image_column: str | None
    device: str


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model(parser)
    parser.add_argument("images", type=user_path, nargs="+", help="image files, folders, parquet or tar files")
    parser.add_argument("--out", type=user_path, required=True, help="the file to write")
    parser.add_argument("--lossless", action="store_true", help="keep every pixel; else the codes alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a sentence")
    parser.add_argument(
        "--on_bad_image",
        type=Literal["raise", "skip"],
        default="raise",
        help="stop, or leave it out and count it",
    )
    add_reading(parser)
    options = parser.parse_args(arguments)
    return Settings(**{field.name: options[field.name] for field in fields(Settings)})


def run(settings: Settings) -> None:
    from depthq.coding import Archive

    check_is_new(settings.out)
    model = load_model(settings.model).to(settings.device)
    prior = load_prior(settings.model)
    if prior is None and not is_shipped(settings.model):
        warnings.warn(
            f"{settings.model} has no prior: its codes cost what all alike do; "
            f"train one with: {prior_command(settings.model)}",
            stacklevel=2,
        )
    archive = Archive(model, prior)
    names, images = _read(settings, model.config.image_channels)
    order = _by_size(images)
    batches = [torch.stack([images[index] for index in same]) for same in order]
    ordered = [names[index] for same in order for index in same] if len(images) > 1 else None
    start = time.perf_counter()
    data = archive.compress(batches, ordered, lossless=settings.lossless)
    seconds = time.perf_counter() - start
    verified = _verified(archive, data, batches) if settings.lossless else None
    with replacing(settings.out) as file:
        file.write(data)
    dims = sum(image.numel() for image in images)
    told = {
        "files": 1,
        "images": len(images),
        "bytes": len(data),
        "bits_per_dim": 8 * len(data) / dims,
        "seconds": seconds,
        "verified": verified,
    }
    if settings.json:
        print(json.dumps(told))
        return
    kind = "lossless, decoded and compared" if settings.lossless else "codes alone"
    print(f"{settings.out}: {len(images)} images in {len(data)} bytes, {8 * len(data) / dims:.4f} bits/dim ({kind})")


def _by_size(images: "Sequence[Tensor]") -> list[list[int]]:
    """Indices of the images of each size, in the order in which sizes come up."""
    sizes: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(index)
    return list(sizes.values())


def _verified(archive: "Archive", data: bytes, batches: "Iterable[Tensor]") -> bool:
    decoded = (image for _, image in archive.decompress(data))
    for image in (image for batch in batches for image in batch):
        if not torch.equal(next(decoded), image):
            raise ValueError(
                "lossless must give every pixel back; it did not, and nothing was written; please report it"
            )
    return True


def _read(settings: Settings, num_channels: int) -> "tuple[list[str], list[Tensor]]":
    """Names and pixels; what is bad is told and left out, or an error."""
    from depthq.data import DataError
    from depthq.data.reading import check_background, has_more, read_pixels

    check_background(settings.background)
    names, images, bad, longer = [], [], [], []
    for source in settings.images:
        if not source.exists():
            raise ValueError(f"images must be files or folders; there is nothing at {source}; check the path")
        for name, encoded in _encoded(source, settings.image_column):
            try:
                pixels = read_pixels(encoded, num_channels, settings.background)
            except DataError:
                if settings.on_bad_image == "raise":
                    raise
                bad.append(encoded.name)
                continue
            names.append(name)
            images.append(torch.from_numpy(pixels.copy()))
            if has_more(encoded):
                longer.append(encoded.name)
    sources = ", ".join(map(str, settings.images))
    if not images:
        raise ValueError(f"images must hold at least one that can be used; got none in {sources}; check the path")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"images must have different names; got {twice[0]} twice; give them in one folder")
    if bad:
        warnings.warn(f"skipped {len(bad)} bad images of {len(bad) + len(images)}: {_named(bad)}", stacklevel=2)
    if longer:
        warnings.warn(
            f"left out pages or frames behind the first in {len(longer)} of {len(images)} images: {_named(longer)}",
            stacklevel=2,
        )
    return names, images


def _named(images: list[str]) -> str:
    return ", ".join(images[:_NUM_NAMED]) + (", ..." if len(images) > _NUM_NAMED else "")


def _encoded(source: Path, image_column: str | None) -> "Iterator[tuple[str, EncodedImage]]":
    """Name and content of each image of a file, a folder or a table."""
    from depthq.data.listing import readable_suffixes
    from depthq.data.opening import what_was_taken
    from depthq.data.reading import EncodedImage
    from depthq.data.sources import Columns, find_images
    from depthq.progress import note

    if source.is_file() and source.suffix.lower() in readable_suffixes():
        if image_column is not None:
            raise ValueError(f"--image-column must come with a parquet or tar file; got {source}; leave it out")
        yield source.name.encode(errors="backslashreplace").decode(), EncodedImage(str(source), str(source))
        return
    found = find_images(str(source), "all", Columns(image_column))
    note(what_was_taken("all", found))
    indices = range(len(found))
    are_rows = bool(found.files)
    for index, image, origin in zip(indices, found.read(indices), found.origins(indices), strict=True):
        yield f"{index:08d}" if are_rows else origin.id, image
