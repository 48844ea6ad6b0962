"""Images of 8 bits: to the normalised space of the paper and back, and to pictures.

The normalised space has ImageNet's mean and standard deviation per colour channel. Images enter the encoder in it, and
the paper's L2 is a mean squared error in it. One unit is about 58 grey values, so squared errors are about 19.6 times
those of images in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from depthq.extras import explain_missing

if TYPE_CHECKING:  # pictures want Pillow, the rest does not
    from PIL import Image

_STRIPE_PIXELS = 2**20
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """Images as the encoder sees them.

    Args:
        images: uint8 (B, C, H, W), C = 3 (RGB) or 1 (gray: the averages of the three means and deviations).

    Returns:
        float32 (B, C, H, W), in the memory format of `images`.

    Raises:
        ValueError: If `images` is not uint8, or C is neither 1 nor 3.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, 0..255; got {images.dtype}")
    mean, std = _statistics("images", images)
    return (images.float() - mean) / std


def denormalize(normalized: Tensor) -> Tensor:
    """The inverse of `normalize`: float32 grey values on the scale 0..255, neither rounded nor clamped.

    Args:
        normalized: float (B, C, H, W), C = 3 or 1.

    Raises:
        ValueError: If C is neither 1 nor 3.
    """
    mean, std = _statistics("normalized", normalized)
    return normalized.float() * std + mean


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images uint8 (B, C, H, W) made larger below and to the right, by reflection, up to multiples of `multiple`.

    What is smaller than what has to be added is reflected to and fro.
    """
    padded = images
    for axis in (2, 3):
        side = images.shape[axis]
        there_and_back = [*range(side), *range(side - 2, 0, -1)]
        wanted = -(-side // multiple) * multiple
        places = torch.tensor([there_and_back[place % len(there_and_back)] for place in range(wanted)], device="cpu")
        padded = padded.index_select(axis, places.to(images.device))
    return padded


def check_image_channels(channels: int) -> None:
    """Raise ValueError unless images of that many channels are gray or RGB."""
    if channels not in (1, 3):
        raise ValueError(f"image_channels must be 1 (gray) or 3 (RGB); got {channels}; convert the images")


def _statistics(name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in grey values, each float32 (1, C, 1, 1) on the device of `images`."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"{name} must be (B, C, H, W), C = 1 (gray) or 3 (RGB); got shape {tuple(images.shape)}; add the batch's "
            "axis, or convert them"
        )
    channels = images.shape[1]
    values = 255 * torch.tensor([_IMAGENET_MEAN, _IMAGENET_STD], dtype=torch.float32, device="cpu")  # (2, 3)
    if channels == 1:
        values = values.mean(1, keepdim=True)
    # Built here, not cached: a cached tensor could have been born in inference mode. Not blocking: the host
    # need not wait until the device's queue has run dry.
    mean, std = values[:, None, :, None, None].to(images.device, non_blocking=True)
    return mean, std


def stripes(image_shape: Sequence[int]) -> list[slice]:
    """Rows of images (B, C, H, W) that are dealt with at once: all, unless they are larger than a million pixels.

    A mixture has a hundred numbers per pixel: those of a photo of a telephone would take gigabytes.
    """
    batch, _, height, width = image_shape
    rows = height if batch * height * width <= _STRIPE_PIXELS else max(1, _STRIPE_PIXELS // (batch * width))
    return [slice(top, top + rows) for top in range(0, height, rows)]


def psnr_db(approximations: Tensor, originals: Tensor) -> Tensor:
    """PSNR of each image (B,) in dB; an exact one counts as one with a single sub-pixel off by 1, to stay finite."""
    squared_error = (approximations - originals).square().mean((1, 2, 3))
    return 10 * (255**2 / squared_error.clamp(min=1 / originals[0].numel())).log10()


def image_grid(*rows: Tensor, columns: int = 8, gap: int = 2) -> Image.Image:
    """Tile batches of images, one under the other, `columns` at a time; small images are enlarged in whole pixels.

    Args:
        rows: Batches uint8 (B, C, H, W) of one shape; the i-th images of all batches stand in one column.
        columns: Images side by side.
        gap: White pixels between images.
    """
    images = torch.stack(rows, dim=1)  # (B, rows, C, H, W)
    zoom = max(1, 96 // images.shape[-2])
    images = images.repeat_interleave(zoom, dim=-2).repeat_interleave(zoom, dim=-1)
    images = torch.nn.functional.pad(images, (0, gap, 0, gap), value=255)
    bands = [torch.cat(list(torch.cat(list(band.unbind(0)), dim=-1)), dim=-2) for band in images.split(columns)]
    width = bands[0].shape[-1]
    bands = [torch.nn.functional.pad(band, (0, width - band.shape[-1]), value=255) for band in bands]
    grid = torch.cat(bands, dim=-2)
    return to_picture(grid[:, : grid.shape[1] - gap, : grid.shape[2] - gap])


def side_by_side(rows: Iterable[Sequence[Tensor]], gap: int = 4, longest_side: int = 1024) -> Image.Image:
    """Images of any sizes, uint8 (C, H, W), a row for each sequence; larger ones as smaller copies.

    Args:
        rows: Images of one size in each.
        gap: White pixels between images.
        longest_side: Pixels that no image has more of in the picture; a whole number of its pixels makes one there.
    """
    pictures = [[reduced(to_picture(image), longest_side) for image in row] for row in rows]
    widths = [sum(picture.width + gap for picture in row) - gap for row in pictures]
    heights = [row[0].height for row in pictures]
    page = _new_picture(pictures[0][0].mode, max(widths), sum(heights) + gap * (len(heights) - 1))
    top = 0
    for row, height in zip(pictures, heights, strict=True):
        left = 0
        for picture in row:
            page.paste(picture, (left, top))
            left += picture.width + gap
        top += height + gap
    return page


def _new_picture(mode: str, width: int, height: int) -> Image.Image:
    with explain_missing():
        from PIL import Image

    return Image.new(mode, (width, height), "white")


def reduced(picture: Image.Image, longest_side: int) -> Image.Image:
    """The picture, or a copy of no more pixels a side, each the mean of a whole number of them."""
    return picture.reduce(-(-max(picture.size) // longest_side))


def to_picture(image: Tensor) -> Image.Image:
    """An image uint8 (C, H, W) as a Pillow image."""
    with explain_missing():
        from PIL import Image

    return Image.fromarray(image.permute(1, 2, 0).numpy() if image.shape[0] == 3 else image[0].numpy())
