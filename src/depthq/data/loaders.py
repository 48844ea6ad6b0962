"""Images -> batches: random crops and flips for training, centre crops in order for evaluation and encoding.

All are map-style data sets of whole batches, so a batch depends on its number alone: on no state that would
have to be saved, and not on how many workers there are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from depthq.data.errors import DataError
from depthq.data.images import ImageDataset
from depthq.data.origin import Origin

# Second words of the seed: one stream for the order of the images, one for crops and flips.
_ORDER, _AUGMENTATION = 0, 1


@dataclass(frozen=True)
class ImageBatch:
    """Images to encode, and what is known of each."""

    images: Tensor
    """uint8 (B, C, S, S), the centre crops."""
    origins: Sequence[Origin]
    """Id and label of each."""
    sizes: Sequence[tuple[int, int]]
    """Original (height, width) of each in pixels, upright, before the crop."""

    def __len__(self) -> int:
        return len(self.origins)


Batch = TypeVar("Batch", Tensor, ImageBatch)


def training_loader(
    images: ImageDataset,
    *,
    batch_size: int,
    num_steps: int,
    seed: int,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    flip: bool = True,
    num_workers: int = 0,
) -> "BatchLoader[Tensor]":
    """One batch per training step: steps `first_step` to `num_steps` - 1 of an endless stream.

    The stream is one permutation of the images after another, without a pause in between. Step t takes the
    next `world_size * batch_size` images of it, and rank r the r-th `batch_size` of these; each is cropped at
    random and, half the time, flipped left to right. It all follows from (seed, t, rank, world_size) alone:
    a run that resumes at `first_step` sees bit for bit what it would have seen, and all ranks together see
    what one process of `world_size * batch_size` would see. In place of a skipped bad image stands the next
    good one of the stream.

    Under Lightning, pass `use_distributed_sampler=False` to the Trainer: the ranks are told apart here.

    Args:
        images: What `open_images` gave.
        batch_size: B, images per process, at least 1.
        num_steps: Steps of the whole run; also the loader's `len`.
        seed: At least 0.
        first_step: Where to start, 0..num_steps.
        rank: This process, 0..world_size - 1.
        world_size: Number of processes.
        flip: Whether to flip half the images; off for digits and text.
        num_workers: Processes that make batches; 0: this one does.

    Returns:
        A loader of uint8 (B, C, S, S).

    Raises:
        ValueError: If an argument is out of its range.
        DataError: On iteration, if an image cannot be used.
    """
    if min(batch_size, world_size) < 1 or min(num_steps, seed) < 0:
        raise ValueError(
            "batch_size and world_size must be at least 1, num_steps and seed at least 0; "
            f"got {batch_size}, {world_size}, {num_steps} and {seed}"
        )
    if not 0 <= first_step <= num_steps:
        raise ValueError(f"first_step must lie in 0..num_steps ({num_steps}); got {first_step}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in [0, world_size) with world_size {world_size}; got {rank}")
    batches = _TrainingBatches(images, batch_size, num_steps, seed, rank, world_size, flip)
    return BatchLoader(batches, range(first_step, num_steps), num_workers)


def evaluation_loader(
    images: ImageDataset, *, batch_size: int, limit: int | None = None, num_workers: int = 0
) -> "BatchLoader[Tensor]":
    """The centre crops of the images, each once and in order.

    Args:
        images: What `open_images` gave.
        batch_size: B, at least 1.
        limit: Only the first so many images, at least 1; None: all.
        num_workers: Processes that make batches; 0: this one does.

    Returns:
        A loader of uint8 (B, C, S, S). The last batch may be smaller, and so is one with skipped bad images.

    Raises:
        ValueError: If an argument is out of its range.
        DataError: On iteration, if an image cannot be used.
    """
    batches = _EvaluationBatches(images, batch_size, limit)
    return BatchLoader(batches, range(len(batches)), num_workers)


def encoding_loader(
    images: ImageDataset, *, batch_size: int, limit: int | None = None, num_workers: int = 0
) -> "BatchLoader[ImageBatch]":
    """The very batches of `evaluation_loader`, as `ImageBatch`: with the id, label and size of each image.

    Arguments and errors are those of `evaluation_loader`.
    """
    batches = _EncodingBatches(images, batch_size, limit)
    return BatchLoader(batches, range(len(batches)), num_workers)


class _Batches(Dataset[Batch], ABC, Generic[Batch]):
    """Batches by number.

    A `DataError` is returned, not raised: raised in a worker, it would reach the user as a traceback.
    """

    def __init__(self, images: ImageDataset):
        self.images = images

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def make(self, number: int) -> Batch:
        """Batch `number`; its images are uint8 (B, C, S, S)."""

    def __getitem__(self, number: int) -> Batch | DataError:
        try:
            return self.make(number)
        except DataError as error:
            return error


class _TrainingBatches(_Batches[Tensor]):
    def __init__(
        self,
        images: ImageDataset,
        batch_size: int,
        num_steps: int,
        seed: int,
        rank: int,
        world_size: int,
        flip: bool,
    ):
        super().__init__(images)
        self.batch_size, self.num_steps, self.seed = batch_size, num_steps, seed
        self.rank, self.world_size, self.flip = rank, world_size, flip

    def __len__(self) -> int:
        return self.num_steps

    def make(self, number: int) -> Tensor:
        size = self.images.image_size
        batch = np.empty((self.batch_size, self.images.num_channels, size, size), np.uint8)
        first = (number * self.world_size + self.rank) * self.batch_size
        for slot, (down, right, mirror) in enumerate(self._draws(number)):
            image = self._image_at(first + slot)
            _, height, width = image.shape
            crop = _crop(image, size, int(down * (height - size + 1)), int(right * (width - size + 1)))
            batch[slot] = crop[:, :, ::-1] if self.flip and mirror < 0.5 else crop
        return torch.from_numpy(batch)

    def _draws(self, step: int) -> np.ndarray:
        """This rank's share (B, 3) of the step's uniform numbers in [0, 1): crop down, crop right, flip."""
        generator = np.random.default_rng([self.seed, _AUGMENTATION, step])
        draws = generator.random((self.world_size, self.batch_size, 3))
        return draws[self.rank]

    def _image_at(self, position: int) -> np.ndarray:
        """The first good image at or after `position` of the endless stream of permutations."""
        for candidate in range(position, position + len(self.images)):
            epoch, place = divmod(candidate, len(self.images))
            image = self.images[int(permutation(self.seed, epoch, len(self.images))[place])]
            if image is not None:
                return image
        raise DataError(f"data must hold a readable image; got {len(self.images)} that are all bad; check the source")


class _BatchesInOrder(_Batches[Batch]):
    def __init__(self, images: ImageDataset, batch_size: int, limit: int | None):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1; got {limit}; leave it out to take all images")
        super().__init__(images)
        self.batch_size, self.num_images = batch_size, min(limit or len(images), len(images))

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def good_images(self, number: int) -> dict[int, np.ndarray]:
        """Those of batch `number` that are not skipped, by their number in the data set."""
        first = number * self.batch_size
        indices = range(first, min(first + self.batch_size, self.num_images))
        return {index: image for index in indices if (image := self.images[index]) is not None}

    def centre_crops(self, good: dict[int, np.ndarray]) -> Tensor:
        size = self.images.image_size
        if not good:
            return torch.empty(0, self.images.num_channels, size, size, dtype=torch.uint8)
        return torch.from_numpy(np.stack([_centre_crop(image, size) for image in good.values()]))


class _EvaluationBatches(_BatchesInOrder[Tensor]):
    def make(self, number: int) -> Tensor:
        return self.centre_crops(self.good_images(number))


class _EncodingBatches(_BatchesInOrder[ImageBatch]):
    def make(self, number: int) -> ImageBatch:
        good = self.good_images(number)
        sizes = [(image.shape[1], image.shape[2]) for image in good.values()]
        return ImageBatch(self.centre_crops(good), self.images.origins(list(good)), sizes)


class BatchLoader(DataLoader[Batch]):
    """A DataLoader of batches that raises their errors here, and tells at the end what was skipped."""

    def __init__(self, batches: _Batches[Batch], numbers: range, num_workers: int):
        super().__init__(
            batches,
            batch_size=None,
            sampler=numbers,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own, so that starting it leaves the run's random state alone
        )
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            for batch in super().__iter__():
                if isinstance(batch, DataError):
                    raise batch
                if len(batch):  # all images of an evaluation batch may have been skipped
                    yield batch
        finally:
            self.batches.images.warn_of_skipped()


@lru_cache(maxsize=2)  # a batch may straddle two epochs
def permutation(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """The order of epoch `epoch`: int64 (num_images,)."""
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(num_images)


def _crop(image: np.ndarray, size: int, top: int, left: int) -> np.ndarray:
    return image[:, top : top + size, left : left + size]


def _centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    _, height, width = image.shape
    return _crop(image, size, (height - size) // 2, (width - size) // 2)
