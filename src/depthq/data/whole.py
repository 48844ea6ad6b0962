"""Images of any size, one after the other, in batches of one size: for evaluation and encoding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from depthq.data.images import ImageDataset
from depthq.data.loaders import centre_crop, check_pass
from depthq.data.origin import Origin

BATCH_PIXELS = 2**18
"""Pixels of a batch of images larger than those of which a full batch has fewer: memory for 512x512 suffices."""


@dataclass(frozen=True)
class ImageBatch:
    """Images of one size, and what is known of each."""

    images: Tensor
    """uint8 (B, C, H, W)."""
    origins: Sequence[Origin]
    """Id and label of each."""

    def __len__(self) -> int:
        return len(self.images)


class ImageBatches:
    """All images in order, each once, whole or as centre crops; bad ones that are skipped are left out.

    A batch ends where the next image is of another size, and at `batch_size` images or, if they are large, at as many
    as make 2^18 pixels. So batches follow from the sizes alone, and whoever passes over the same images sees the same.

    Args:
        images: What `open_whole_images` or `open_images` gave.
        batch_size: B, at most, 1 or more.
        limit: Only the first so many images, at least 1; None: all.
        crop: Side of centre crops, at most that of the images; None: whole images.
        first: The number of the first image taken.

    Raises:
        ValueError: If an argument is out of its range.
        DataError: On iteration, if an image cannot be used.
    """

    def __init__(
        self,
        images: ImageDataset,
        *,
        batch_size: int,
        limit: int | None = None,
        crop: int | None = None,
        first: int = 0,
    ):
        check_pass(batch_size, limit)
        if not 0 <= first <= len(images):
            raise ValueError(f"first must lie in 0..{len(images)}, the number of images; got {first}")
        self.images, self.batch_size, self.crop, self.first = images, batch_size, crop, first
        self.num_images = min(limit or len(images), len(images) - first)

    def __iter__(self) -> Iterator[ImageBatch]:
        held: dict[int, np.ndarray] = {}
        try:
            for index in range(self.first, self.first + self.num_images):
                image = self.images[index]
                if image is None:
                    continue
                if self.crop is not None:
                    image = centre_crop(image, self.crop)
                if held and (self._is_full(held) or image.shape != next(iter(held.values())).shape):
                    yield self._batch(held)
                    held = {}
                held[index] = image
            if held:
                yield self._batch(held)
        finally:
            self.images.warn_of_skipped()

    def _is_full(self, held: dict[int, np.ndarray]) -> bool:
        _, height, width = next(iter(held.values())).shape
        return len(held) >= min(self.batch_size, max(1, BATCH_PIXELS // (height * width)))

    def _batch(self, held: dict[int, np.ndarray]) -> ImageBatch:
        return ImageBatch(torch.from_numpy(np.stack(list(held.values()))), self.images.origins(list(held)))
