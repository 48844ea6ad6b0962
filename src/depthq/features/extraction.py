"""From a network and a data set to files of features."""

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor, nn

from depthq.data import evaluation_loader, open_images
from depthq.data.opening import ReadingOptions
from depthq.features.backbones import last_map_layer, layer_maps, save_features
from depthq.progress import progress

BATCH_SIZE = 32


def example_maps(
    model: nn.Module,
    *,
    layer: str | None = None,
    normalize: Callable[[Tensor], Tensor],
    image_size: int = 224,
    device: str = "cpu",
) -> tuple[str, Tensor]:
    """The layer's name, and its maps (1, C, H, W) of a black image: what to expect, before all images are read.

    Arguments and errors are those of `extract_features`.
    """
    model = model.to(device)
    black = normalize(torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)).to(device)
    name = last_map_layer(model, black) if layer is None else layer
    return name, layer_maps(model, name, black)


def extract_features(
    model: nn.Module,
    data: str,
    folder: Path,
    *,
    layer: str | None = None,
    normalize: Callable[[Tensor], Tensor],
    image_size: int = 224,
    limit: int | None = None,
    device: str = "cpu",
    **reading: Unpack[ReadingOptions],
) -> None:
    """Write train.npy and test.npy into a folder: a layer's maps (B, C, H, W) of the centre crops of each split.

    Args:
        model: Any network of images.
        data: As `depthq.data.open_images` takes it.
        folder: Where to write; it exists.
        layer: A name from `model.named_modules()`; by default the last layer before pooling.
        normalize: From pixels, uint8 (B, 3, S, S), to what the network was trained on; see `NORMALIZATIONS`.
        image_size: S.
        limit: Only the first so many images of each split.
        device: Where to compute.
        reading: As in `depthq.data.opening.Reading`; bad images cannot be skipped.

    Raises:
        DataError: If the images cannot be used.
        ValueError: If the network has no such layer, or cannot take the images.
    """
    layer, _ = example_maps(model, layer=layer, normalize=normalize, image_size=image_size, device=device)
    for split in ("train", "test"):
        images = open_images(data, split, image_size=image_size, **reading)
        loader = evaluation_loader(images, batch_size=BATCH_SIZE, limit=limit)
        loader = progress(loader, what=f"{layer} of {split} images", unit="batch")
        # Gray images go to all three channels: backbones expect colour.
        maps = (layer_maps(model, layer, normalize(batch.expand(-1, 3, -1, -1)).to(device)) for batch in loader)
        save_features(folder / f"{split}.npy", maps, min(len(images), limit or len(images)))
