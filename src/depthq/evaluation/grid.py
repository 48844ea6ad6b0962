"""Pictures to look at: originals above, reconstructions below."""

import torch
from PIL import Image
from torch import Tensor

from depthq.models import DQAE


def reconstruct(model: DQAE, images: Tensor) -> Tensor:
    """Images uint8 (B, C, H, W) through the codes and back, in eval mode; without a quantizer, through the latents."""
    if model.config.quantizer == "none":
        with torch.no_grad():
            return model.likelihood.mean(model(images).parameters).round().to(torch.uint8)
    return model.decode(model.encode(images))


def reconstruction_grid(model: DQAE, images: Tensor, columns: int = 8) -> Image.Image:
    """`image_grid` of images uint8 (B, C, H, W) and of what the model makes of them."""
    return image_grid(images.cpu(), reconstruct(model, images.to(model.device)).cpu(), columns=columns)


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
    return to_picture(torch.cat(bands, dim=-2)[:, :-gap, :-gap])


def to_picture(image: Tensor) -> Image.Image:
    """An image uint8 (C, H, W) as a Pillow image."""
    return Image.fromarray(image.permute(1, 2, 0).numpy() if image.shape[0] == 3 else image[0].numpy())
