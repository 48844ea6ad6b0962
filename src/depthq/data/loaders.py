"""Images -> batches of crops: at random and flipped for training, from the centre and in order for evaluation.

All are map-style data sets of whole batches, so a batch depends on its number alone: on no state that would
have to be saved, and not on how many workers there are.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from depthq.data.errors import DataError
from depthq.data.images import DECODED_BYTES, HeldImages, ImageDataset

# Second words of the seed: one stream for the order of the images, one for crops and flips.
_ORDER, _AUGMENTATION = 0, 1

_MOST_WORKERS = 8


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
) -> "BatchLoader":
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
        num_workers: Processes that make batches. 0: this one does, while all decoded images fit into
            `DECODED_BYTES`, where they are kept; else one for each core, at most 8. The batches are the same.

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
    if not num_workers and not isinstance(images, HeldImages) and images.num_bytes > DECODED_BYTES:
        num_workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    kept = _KeptImages(images, DECODED_BYTES // max(1, num_workers))
    batches = _TrainingBatches(kept, batch_size, num_steps, seed, rank, world_size, flip)
    return BatchLoader(batches, range(first_step, num_steps), num_workers)


def evaluation_loader(
    images: ImageDataset, *, batch_size: int, limit: int | None = None, num_workers: int = 0
) -> "BatchLoader":
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


class _Batches(Dataset[Tensor], ABC):
    """Batches by number.

    A `DataError` is returned, not raised: raised in a worker, it would reach the user as a traceback.
    """

    def __init__(self, images: ImageDataset):
        self.images = images

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def make(self, number: int) -> Tensor:
        """Batch `number`; its images are uint8 (B, C, S, S)."""

    def __getitem__(self, number: int) -> Tensor | DataError:
        try:
            return self.make(number)
        except DataError as error:
            return error


class _TrainingBatches(_Batches):
    def __init__(
        self,
        images: "_KeptImages",
        batch_size: int,
        num_steps: int,
        seed: int,
        rank: int,
        world_size: int,
        flip: bool,
    ):
        super().__init__(images.images)
        self.kept = images
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
        # The last good image of this permutation may be just behind us, and that of the next one at its end.
        for candidate in range(position, position + 2 * len(self.images) - 1):
            epoch, place = divmod(candidate, len(self.images))
            image = self.kept[int(permutation(self.seed, epoch, len(self.images))[place])]
            if image is not None:
                return image
        raise DataError(f"data must hold a readable image; got {len(self.images)} that are all bad; check the source")


class _KeptImages:
    """Decoded images, kept up to a limit; what comes behind it is decoded whenever it is asked for."""

    def __init__(self, images: ImageDataset, limit_bytes: int):
        self.images = images
        self._kept: dict[int, np.ndarray] = {}
        self._bytes_left = 0 if isinstance(images, HeldImages) else limit_bytes

    def __getitem__(self, index: int) -> np.ndarray | None:
        image = self._kept.get(index)
        if image is None:
            image = self.images[index]
            if image is not None and image.nbytes <= self._bytes_left:
                self._kept[index] = image
                self._bytes_left -= image.nbytes
        return image


class _EvaluationBatches(_Batches):
    def __init__(self, images: ImageDataset, batch_size: int, limit: int | None):
        check_pass(batch_size, limit)
        super().__init__(images)
        self.batch_size, self.num_images = batch_size, min(limit or len(images), len(images))

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def make(self, number: int) -> Tensor:
        first, size = number * self.batch_size, self.images.image_size
        images = (self.images[index] for index in range(first, min(first + self.batch_size, self.num_images)))
        crops = [centre_crop(image, size) for image in images if image is not None]
        if not crops:
            return torch.empty(0, self.images.num_channels, size, size, dtype=torch.uint8)
        return torch.from_numpy(np.stack(crops))


class BatchLoader(DataLoader[Tensor]):
    """A DataLoader of batches that raises their errors here, and tells at the end what was skipped."""

    def __init__(self, batches: _Batches, numbers: range, num_workers: int):
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

    def __iter__(self) -> Iterator[Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
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


def check_pass(batch_size: int, limit: int | None) -> None:
    """Raise ValueError unless they are a batch size, and a number of images or None for all."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1; got {limit}; leave it out to take all images")


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The middle (C, S, S) of an image (C, H, W)."""
    _, height, width = image.shape
    return _crop(image, size, (height - size) // 2, (width - size) // 2)
