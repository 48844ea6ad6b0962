"""`open_images`: from a source's name to images that are ready for the loaders."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch

from depthq.data.bundled import bundled_patches, bundled_photos
from depthq.data.encoded import EncodedImages
from depthq.data.errors import DataError
from depthq.data.images import DECODED_BYTES, HeldImages, ImageDataset, LazyImages, OnBadImage
from depthq.data.reading import check_background, has_more, read_shape
from depthq.data.sources import Columns, count_encoded_images, find_images
from depthq.data.split import Split
from depthq.progress import progress

_BUNDLED_IMAGE_SIZE = 32
_NUM_PROBED = 100
_CHUNK_SIZE = 256

Shape = tuple[int, int, int]  # (C, H, W)


class ReadingOptions(TypedDict, total=False):
    """The fields of `Reading`, by keyword."""

    on_bad_image: OnBadImage
    background: str | None
    image_column: str | None
    label_column: str | None


@dataclass(frozen=True)
class Reading:
    """How images are read where there is a choice.

    Raises:
        ValueError: If `background` is no colour, or `on_bad_image` unknown.
    """

    on_bad_image: OnBadImage = "raise"
    """What to do with an image that cannot be used (corrupt, cut off, transparent, too small, ...): "raise" an error
    that names it, or "skip" it, count it in `num_skipped` and warn at the end."""
    background: str | None = None
    """The colour that transparent images are laid on, "white" or "#808080"; None: they cannot be used."""
    image_column: str | None = None
    """The column of images of a parquet file or hub data set, or their extension in tar files; None: the only one, or
    the one called as images are."""
    label_column: str | None = None
    """The column of labels, whole numbers or strings, or their extension in tar files; None: `label`, or cls, if there
    is one."""

    def __post_init__(self):
        if self.on_bad_image not in ("raise", "skip"):
            raise ValueError(f'on_bad_image must be "raise" or "skip"; got {self.on_bad_image!r}')
        check_background(self.background)

    @property
    def columns(self) -> Columns:
        return Columns(self.image_column, self.label_column)


def open_images(
    source: str | Path,
    split: Split,
    *,
    image_size: int | None = None,
    num_channels: int = 1,
    hold: bool = True,
    **reading: Unpack[ReadingOptions],
) -> ImageDataset:
    """Open the images of one split, or all of a source.

    The headers of 100 images spread over the set decide whether it is gray (all of them are) or colour, what its
    common size is, and whether there are further pages or frames, which are left out. A set of one shape whose
    pixels take at most 1 GiB is read now and held as one tensor; any other is read by the loaders, batch by batch.

    Args:
        source: "bundled" (patches of real photos, see `depthq.data.bundled`), a folder of images, a parquet or tar
            file, a folder of such files, by path or URL, or the name of a hub data set. How these are split is told in
            `depthq.data.sources`. A folder that is itself called bundled is "./bundled".
        split: "train" or "test", which never share an image, or "all", in the order that `depthq.data.sources` tells.
        image_size: Side S of the square crops, in pixels; None: the one size that all images have, which must
            be square (bundled: 32).
        num_channels: The least C; with 3 a gray set is one of colour, too.
        hold: Whether to read a small set now; False is for who takes only a part of it.
        reading: As in `Reading`.

    Raises:
        ValueError: If an argument is out of its range.
        DataError: If there are no images, or one cannot be used and `on_bad_image` is "raise".
    """
    if split not in ("train", "test", "all"):
        raise ValueError(f'split must be "train", "test" or "all"; got {split!r}')
    how = Reading(**reading)
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1; got {image_size}")
    if num_channels not in (1, 3):
        raise ValueError(f"num_channels must be 1 (gray) or 3 (RGB); got {num_channels}")
    if str(source) == "bundled":
        return bundled_patches(split, image_size or _BUNDLED_IMAGE_SIZE)
    encoded = find_images(str(source), split, how.columns)
    shapes, notes = _probe(encoded, how.on_bad_image)
    encoded = replace(encoded, left_out=(*encoded.left_out, *notes))
    num_channels = max(num_channels, *(channels for channels, _, _ in shapes.values()))
    _check_crops(image_size, shapes, how.on_bad_image)
    images = LazyImages(
        encoded,
        num_channels=num_channels,
        image_size=image_size or _common_size(shapes),
        must_fit_exactly=image_size is None,
        on_bad_image=how.on_bad_image,
        background=how.background,
        bytes_per_image=num_channels * sum(height * width for _, height, width in shapes.values()) / len(shapes),
    )
    return _hold(images, shapes) if hold and _is_small(images, shapes) else images


def open_whole_images(
    source: str | Path, split: Split, *, num_channels: int = 1, hold: bool = True, **reading: Unpack[ReadingOptions]
) -> ImageDataset:
    """Open images of any size for `ImageBatches`, which gives them whole; arguments and errors as `open_images`.

    Of "bundled" the whole photos.
    """
    if str(source) == "bundled":
        return bundled_photos(split)
    return open_images(source, split, image_size=1, num_channels=num_channels, hold=hold, **reading)


def describe_images(source: str | Path, split: Split) -> tuple[int, Shape]:
    """How many images a split has, and their common (C, H, W), from headers alone.

    Raises:
        DataError: If there are no images, they are not square, or differ in size.
    """
    if str(source) == "bundled":
        images = open_images(source, split)
        return len(images), (images.num_channels, images.image_size, images.image_size)
    encoded = find_images(str(source), split)
    shapes, _ = _probe(encoded, "raise")
    size = _common_size(shapes)
    return len(encoded), (max(channels for channels, _, _ in shapes.values()), size, size)


def count_images(
    source: str | Path,
    *,
    image_size: int | None = None,
    whole: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
) -> int:
    """How many images a source has in all, whatever their split, found without opening any.

    Args:
        source: As `open_images` takes it.
        image_size: Of which there are as many as fit into the bundled photos; of no matter elsewhere.
        whole: Whether to count the bundled photos themselves; of no matter elsewhere.
        image_column: As in `Reading`.
        label_column: As in `Reading`.

    Raises:
        DataError: If there are no images.
    """
    if str(source) == "bundled":
        return len(bundled_photos("all") if whole else open_images(source, "all", image_size=image_size))
    return count_encoded_images(str(source), Columns(image_column, label_column))


def _probe(encoded: EncodedImages, on_bad_image: OnBadImage) -> tuple[dict[str, Shape], list[str]]:
    """(C, H, W) by name, from the headers of images spread evenly over the set; and in words what of them is left."""
    shapes, num_longer = {}, 0
    spread = np.unique(np.linspace(0, len(encoded) - 1, _NUM_PROBED).astype(int))
    for image in encoded.read(spread.tolist()):
        try:
            shapes[image.name] = read_shape(image)
            num_longer += has_more(image)
        except DataError:
            if on_bad_image == "raise":
                raise
    if not shapes:
        raise DataError(
            f"data must hold a readable image; got none among the {len(spread)} tried, such as "
            f"{encoded.read([0])[0].name}; check the source"
        )
    notes = [f"pages or frames behind the first in {num_longer} of {len(shapes)} images looked at"]
    return shapes, notes if num_longer else []


def _check_crops(image_size: int | None, shapes: dict[str, Shape], on_bad_image: OnBadImage) -> None:
    """Before memory is asked for crops that no image has."""
    too_small = {name: shape for name, shape in shapes.items() if image_size and min(shape[1:]) < image_size}
    if too_small and (on_bad_image == "raise" or len(too_small) == len(shapes)):
        name, (_, height, width) = next(iter(too_small.items()))
        raise DataError(
            f"images must be at least image_size, {image_size} x {image_size}; got {name} of {height} x {width}; "
            "pass a smaller image_size, or enlarge or remove the image"
        )


def _common_size(shapes: dict[str, Shape]) -> int:
    first, (_, *size) = next(iter(shapes.items()))
    if size[0] != size[1]:
        raise DataError(
            f"images must be square where image_size is not given; got {first} of {size[0]} x {size[1]}; "
            "pass image_size to crop"
        )
    for name, (_, *other) in shapes.items():
        if other != size:
            raise DataError(
                f"images must share one size where image_size is not given; got {first} of "
                f"{size[0]} x {size[1]} and {name} of {other[0]} x {other[1]}; pass image_size to crop"
            )
    return size[0]


def _is_small(images: LazyImages, shapes: dict[str, Shape]) -> bool:
    sizes = {(height, width) for _, height, width in shapes.values()}
    num_pixels = max(height * width for height, width in sizes)
    return len(sizes) == 1 and len(images) * images.num_channels * num_pixels <= DECODED_BYTES


def _hold(images: LazyImages, shapes: dict[str, Shape]) -> ImageDataset:
    """All of `images` in memory; or `images` itself, if a later one turns out to be of another size."""
    _, height, width = next(iter(shapes.values()))
    pixels = torch.empty(len(images), images.num_channels, height, width, dtype=torch.uint8)
    if not _read_into(pixels.numpy(), images):
        images.forget_skipped()
        return images
    images.warn_of_skipped()
    kept = torch.arange(len(images))
    if images.num_skipped:
        kept = kept[~images.skipped()]
        pixels = pixels[kept]
    names = images.names()
    held = HeldImages(
        pixels,
        images.image_size,
        images.num_skipped,
        images.origins(kept.tolist()),
        [names[index] for index in kept.tolist()],
    )
    held.taken_from, held.left_out = images.taken_from, images.left_out
    return held


def _read_into(pixels: np.ndarray, images: LazyImages) -> bool:
    """Fill `pixels` (B, C, H, W), except where images are skipped; False at the first of another size."""

    def fill(chunk: range) -> bool:
        for index, image in zip(chunk, images.read(chunk), strict=True):
            if image is not None:
                if image.shape != pixels.shape[1:]:
                    return False
                pixels[index] = image
        return True

    chunks = [range(len(images))[start : start + _CHUNK_SIZE] for start in range(0, len(images), _CHUNK_SIZE)]
    pool = ThreadPoolExecutor(2 * (os.cpu_count() or 1))  # Pillow's decoders release the interpreter lock
    try:
        return all(progress(pool.map(fill, chunks), total=len(chunks), what="reading images", unit="batch"))
    finally:
        pool.shutdown(cancel_futures=True)


def what_was_taken(split: Split, images: ImageDataset | EncodedImages) -> str:
    """A sentence: how many images of a split there are, where they come from, and what was left out."""
    left_out = f"; left out: {'; '.join(images.left_out)}" if images.left_out else ""
    return f"{split}: {len(images)} images from {images.taken_from}{left_out}"
