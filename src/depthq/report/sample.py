"""A few images of a stream, drawn at random: what pictures show, so that nobody picks the fair ones."""

import torch
from torch import Tensor


class ImageSample:
    """Draws images without replacement from batches of unknown number; the same seed draws the same images.

    Args:
        size: How many to draw; all, if there are fewer.
        seed: Of the draw.
    """

    def __init__(self, size: int, seed: int = 0):
        self.size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._lots = torch.empty(0)  # one number per image kept; the highest stay
        self._images: Tensor | None = None

    def update(self, images: Tensor) -> None:
        """Let a batch of images uint8 (B, C, H, W) take part in the draw."""
        lots = torch.cat([self._lots, torch.rand(len(images), generator=self._generator)])
        candidates = images.cpu() if self._images is None else torch.cat([self._images, images.cpu()])
        self._lots, kept = lots.topk(min(self.size, len(lots)))
        self._images = candidates[kept]

    @property
    def images(self) -> Tensor:
        """uint8 (B, C, H, W) on the CPU, B up to `size`; raises ValueError if there was no batch."""
        if self._images is None:
            raise ValueError("images must hold at least one image; got none")
        return self._images
