"""What evaluate, reconstruct and encode share: a trained model and the images to run it on."""

import hashlib
import json
import shlex
import warnings
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt
from torch import Tensor

from depthq.cli.paths import absolute_if_there, user_path
from depthq.data import Split
from depthq.models import DQAE
from depthq.runs import RunFolder, is_run, load_model, load_run_settings, load_training_images, name_hashes
from depthq.weights import SHIPPED, shipped_folder

if TYPE_CHECKING:
    from depthq.data import ImageBatch, ImageDataset
    from depthq.data.opening import ReadingOptions
    from depthq.encoding import ImagesToEncode

# One batch size for all verbs: the last bit of a convolution may depend on it, and codes must decode to exactly
# what reconstruct shows.
BATCH_SIZE = 64
MODEL_HELP = "a run of depthq train, a save_pretrained folder, or the name of a shipped model (depthq info --list)"


@dataclass(frozen=True)
class ModelAndData:
    """Where the model and the images are."""

    model: Path
    data: str | None
    split: Split
    crop: int | None
    """Side of the centre crops; None: whole images, or crops as the run was trained, which `whole` says."""
    whole: bool
    """Whether images are whole where `crop` is not given."""
    on_bad_image: Literal["raise", "skip"] | None
    background: str | None
    image_column: str | None
    label_column: str | None
    device: str


def add_model(parser: ArgumentParser, *, help: str = MODEL_HELP, is_required: bool = True) -> None:
    if is_required:
        parser.add_argument("model", type=model_folder, help=help)
    else:
        parser.add_argument("model", type=model_folder, nargs="?", help=help)
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu, cuda, cuda:1, ...")


def model_folder(name: str) -> Path:
    """The folder of a model: as named, or of the shipped one of that name if there is no such folder."""
    folder = user_path(name)
    return folder if folder.exists() else shipped_folder(name) or folder


def is_shipped(model: Path) -> bool:
    """Whether it is a folder inside the package."""
    return model in [shipped_folder(name) for name in SHIPPED]


def check_is_no_shipped_model(model: Path) -> None:
    """Raise ValueError for a model inside the package, whose folder is not to be written into."""
    if is_shipped(model):
        raise ValueError(
            f"the model must be one of your own, into whose folder this command writes; got the shipped {model.name}; "
            f"copy it first: {_copy_command(model)}"
        )


def _copy_command(model: Path) -> str:
    """What copies a model inside the package, without the prior that it may have."""
    without = f" && rm -r my-{model.name}/prior" if RunFolder(model).prior.is_dir() else ""
    return f"cp -r {shlex.quote(str(model))} my-{model.name}{without}"


def prior_command(model: Path) -> str:
    """What trains a prior of the model, or of a copy of one inside the package."""
    data = "" if is_run(model) else " --data DATA"
    if is_shipped(model):
        return f"{_copy_command(model)} && depthq prior my-{model.name}{data}"
    return f"depthq prior {shlex.quote(str(model))}{data}"


def device_name(name: str) -> str:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # no such device; a PyTorch without CUDA
        raise ArgumentTypeError(f"device must be one of this machine; got {name} ({error}); try cpu") from error
    if name == "meta":
        raise ArgumentTypeError("device must be one that computes; got meta; try cpu")
    return name


def add_model_and_data(
    parser: ArgumentParser,
    *,
    split: Split = "test",
    whole: bool = True,
    labels: bool = False,
    help: str = MODEL_HELP,
) -> None:
    """Options of a model and its images; `split` is taken unless the user names one; `labels`: whether labels are."""
    add_model(parser, help=help)
    parser.add_argument("--data", type=str, help="as for train; by default what the run was trained on")
    parser.add_argument("--split", type=Split, default=split, help="which part of the data")
    usual = "whole images of any size" if whole else "as the run was trained"
    parser.add_argument("--crop", type=PositiveInt, help=f"side of centre crops in pixels; by default {usual}")
    parser.add_argument(
        "--on_bad_image",
        type=Literal["raise", "skip"],
        help="stop, or leave it out and count it; by default as the run was trained",
    )
    add_reading(parser)
    if labels:
        parser.add_argument("--label_column", help="of whole numbers or strings; by default label, if there is one")


def add_reading(parser: ArgumentParser) -> None:
    """Options of images that can be read in several ways."""
    parser.add_argument("--background", help="the colour that transparent images are laid on, such as white")
    parser.add_argument("--image_column", help="of a parquet or tar file or hub data set, where several could be meant")


def model_and_data(options, *, whole: bool = True) -> ModelAndData:
    """What the options of `add_model_and_data` say; `whole` as there."""
    return ModelAndData(
        model=options.model,
        data=options.data,
        split=options.split,
        crop=options.crop,
        whole=whole,
        on_bad_image=options.on_bad_image,
        background=options.background,
        image_column=options.image_column,
        label_column=getattr(options, "label_column", None),
        device=options.device,
    )


def load(settings: ModelAndData, *, limit: int | None = None) -> tuple[DQAE, Iterator[Tensor]]:
    """The model, and batches of images uint8 (B, C, H, W) with a progress bar.

    Raises:
        ValueError: If there is no model, no data, or the one cannot take the other.
    """
    model, images = open_model_and_images(settings)
    return model, (batch.images for batch in batches_of(images, settings, limit=limit))


def batches_of(images: "ImageDataset", settings: ModelAndData, *, limit: int | None = None) -> "Iterator[ImageBatch]":
    """The images, whole or cropped, with a progress bar."""
    from depthq.data import ImageBatches  # here, with the rest that --help need not wait for
    from depthq.progress import of_a_pass, progress_bar

    crop = None if settings.whole and settings.crop is None else images.image_size
    batches = ImageBatches(images, batch_size=BATCH_SIZE, limit=limit, crop=crop)
    with progress_bar(total=batches.num_images, **of_a_pass("image")) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def open_model_and_images(settings: ModelAndData) -> "tuple[DQAE, ImageDataset]":
    """The model on its device, and the images of the split.

    Raises:
        ValueError: If there is no model, no data, or the one cannot take the other.
    """
    from depthq.data import open_images, open_whole_images, what_was_taken
    from depthq.progress import note

    model = load_model(settings.model).to(settings.device)
    source, crop, reading = _source(settings)
    channels = model.config.image_channels
    if crop is None and settings.whole:
        images = open_whole_images(source, settings.split, num_channels=channels, **reading)
    else:
        images = open_images(source, settings.split, image_size=crop, num_channels=channels, **reading)
    check_model_takes(model, images, source, None if crop is None and settings.whole else images.image_size)
    note(what_was_taken(settings.split, images))
    return model, images


def check_model_takes(model: DQAE, images: "ImageDataset", source: str, crop: int | None) -> None:
    """Raise DataError unless the model takes such images, whole (`crop` None) or as crops of that side."""
    from depthq.data import DataError

    if crop is not None and crop % model.config.image_multiple:
        raise DataError(
            f"--crop must be a multiple of {model.config.image_multiple}, the stride of the model's coarsest "
            f"level; got {crop}; give another"
        )
    if images.num_channels > model.config.image_channels:
        raise DataError(
            f"images in {source} must have at most {model.config.image_channels} channels, as many as the model; "
            f"got {images.num_channels}; convert them, or train a model on such images"
        )


def images_of(settings: ModelAndData, model: DQAE) -> "ImagesToEncode":
    """The images that are meant, for those who open them elsewhere; raises ValueError where none are named."""
    from depthq.encoding import ImagesToEncode

    source, crop, reading = _source(settings)
    channels = model.config.image_channels
    return ImagesToEncode(absolute_if_there(source), settings.split, crop, reading, BATCH_SIZE, channels)


def warn_of_trained_on(
    model: Path, images: "ImageDataset", settings: ModelAndData, *, limit: int | None = None
) -> None:
    """Warn if the model was trained on some of the images, as far as their names and sizes in bytes tell.

    Args:
        model: A run; of other models nothing is known.
        images: What is measured.
        settings: Where `images` are. In a run's own data an image for training, if it is still there, is no other one
            for testing that happens to have its name and size.
        limit: How many of the first of `images` are measured; None: all.
    """
    trained_on = load_training_images(model)
    if trained_on is None:
        return
    names, known = _counted(images.names()[:limit]), Counter(trained_on.tolist())
    if names & known and settings.split == "test":
        known -= _counted(_names_for_training(model, settings))
    if seen := (names & known).total():
        warnings.warn(
            f"{model} was trained on {seen} of these {names.total()} images: the figures flatter it; "
            "measure images that it has not seen",
            stacklevel=2,
        )


def _counted(names: list[str]) -> Counter[int]:
    return Counter(name_hashes(names).tolist())


def _names_for_training(run: Path, settings: ModelAndData) -> list[str]:
    """Of the images for training beside those of `settings`, if these are the run's own data."""
    from depthq.data import DataError
    from depthq.data.sources import Columns, find_images

    source, _, reading = _source(settings)
    own = load_run_settings(run)["data"] if is_run(run) else None
    if own is None or source == "bundled" or absolute_if_there(source) != absolute_if_there(own):
        return []
    try:
        return find_images(source, "train", Columns(reading.get("image_column"))).names()
    except DataError:  # none are left
        return []


def count_all_images(settings: ModelAndData) -> int:
    """How many images the data has, whatever their split."""
    from depthq.data import count_images

    source, crop, reading = _source(settings)
    return count_images(
        source,
        image_size=crop,
        whole=settings.whole and crop is None,
        image_column=reading.get("image_column"),
        label_column=reading.get("label_column"),
    )


def images_key(settings: ModelAndData, images: "ImageDataset") -> str:
    """Tells these images, as they are read and cropped, from others, as far as their names and sizes in bytes do."""
    _, _, reading = _source(settings)
    told = [images.names(), images.image_size, reading.get("background"), reading.get("image_column")]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _source(settings: ModelAndData) -> "tuple[str, int | None, ReadingOptions]":
    """The data, the side of crops and how images are read: as told, or else as the run was trained."""
    trained = load_run_settings(settings.model) if is_run(settings.model) else {}
    source = settings.data or trained.get("data")
    if source is None:
        raise ValueError(f"--data must be given, as {settings.model} is not a run that knows its own")
    own = trained.get("data")
    crop, is_own = settings.crop, own is not None and absolute_if_there(source) == absolute_if_there(own)
    if crop is None and is_own and (not settings.whole or source == "bundled"):
        crop = trained.get("image_size")
    reading: ReadingOptions = {
        "on_bad_image": settings.on_bad_image or trained.get("on_bad_image", "raise"),
        "background": settings.background or trained.get("background"),
        "image_column": settings.image_column or (trained.get("image_column") if is_own else None),
        "label_column": settings.label_column,
    }
    return source, crop, reading
