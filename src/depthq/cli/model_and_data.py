"""What evaluate, reconstruct and encode share: a trained model and the images to run it on."""

from argparse import ArgumentTypeError
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt
from torch import Tensor

from depthq.data import Split
from depthq.models import DQAE
from depthq.runs import is_run, load_model, load_run_settings

if TYPE_CHECKING:
    from depthq.data import ImageDataset

# One batch size for all verbs: the last bit of a convolution may depend on it, and codes must decode to exactly
# what reconstruct shows.
BATCH_SIZE = 64
MODEL_HELP = "a run of depthq train, or a save_pretrained folder"


@dataclass(frozen=True)
class ModelAndData:
    """Where the model and the images are."""

    model: Path
    data: str | None
    split: Split
    image_size: int | None
    on_bad_image: Literal["raise", "skip"] | None
    device: str


def add_model(parser: ArgumentParser, *, help: str = MODEL_HELP) -> None:
    parser.add_argument("model", type=Path, help=help)
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu, cuda, cuda:1, ...")


def device_name(name: str) -> str:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # no such device; a PyTorch without CUDA
        raise ArgumentTypeError(f"device must be one of this machine; got {name} ({error}); try cpu") from error
    return name


def add_model_and_data(parser: ArgumentParser, *, split: Split = "test", help: str = MODEL_HELP) -> None:
    """Options of a model and its images; `split` is taken unless the user names one."""
    add_model(parser, help=help)
    parser.add_argument("--data", type=str, help="as for train; by default what the run was trained on")
    parser.add_argument("--split", type=Split, default=split, help="which part of the data")
    parser.add_argument(
        "--image_size", type=PositiveInt, help="side of the centre crops; by default as the run was trained"
    )
    parser.add_argument(
        "--on_bad_image",
        type=Literal["raise", "skip"],
        help="stop, or leave it out and count it; by default as the run was trained",
    )


def model_and_data(options) -> ModelAndData:
    return ModelAndData(
        options.model, options.data, options.split, options.image_size, options.on_bad_image, options.device
    )


def load(settings: ModelAndData, *, limit: int | None = None) -> tuple[DQAE, Iterator[Tensor]]:
    """The model, and batches of uint8 images (B, C, S, S) on its device with a progress bar.

    Raises:
        ValueError: If there is no model, no data, or the one cannot take the other.
    """
    from tqdm import tqdm  # here, with the rest that --help need not wait for

    from depthq.data import evaluation_loader

    model, images = open_model_and_images(settings)
    loader = evaluation_loader(images, batch_size=BATCH_SIZE, limit=limit)
    batches = tqdm(loader, unit="batch", delay=2, leave=False)
    return model, (batch.to(model.device) for batch in batches)


def open_model_and_images(settings: ModelAndData) -> "tuple[DQAE, ImageDataset]":
    """The model on its device, and the images of the split.

    Raises:
        ValueError: If there is no model, no data, or the one cannot take the other.
    """
    from depthq.data import DataError, open_images

    model = load_model(settings.model).to(settings.device)
    source, image_size, on_bad_image = _source(settings)
    images = open_images(source, settings.split, image_size=image_size, on_bad_image=on_bad_image)
    if images.num_channels != model.config.image_channels:
        raise DataError(
            f"images in {source} must have {model.config.image_channels} channels, as the model has; "
            f"got {images.num_channels}; convert them, or train a model on such images"
        )
    return model, images


def count_all_images(settings: ModelAndData) -> int:
    """How many images the data has, whatever their split."""
    from depthq.data import count_images

    source, image_size, _ = _source(settings)
    return count_images(source, image_size=image_size)


def _source(settings: ModelAndData) -> tuple[str, int | None, Literal["raise", "skip"]]:
    """The data, the side of crops and what to do with bad images: as told, or else as the run was trained."""
    trained = load_run_settings(settings.model) if is_run(settings.model) else {}
    source = settings.data or trained.get("data")
    if source is None:
        raise ValueError(f"--data must be given, as {settings.model} is not a run that knows its own")
    image_size = settings.image_size or (trained.get("image_size") if source == trained.get("data") else None)
    return source, image_size, settings.on_bad_image or trained.get("on_bad_image", "raise")
