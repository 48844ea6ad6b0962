"""Codes -> batches for a prior. As with images, a batch follows from its number alone."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from depthq.codes import Codes
from depthq.data.loaders import permutation

CodeLevels = tuple[Tensor, ...]
"""int64 (B, M, H, W) per level: what a DataLoader can bring to a device."""


def code_training_loader(
    codes: Codes,
    *,
    batch_size: int,
    num_steps: int,
    seed: int,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[CodeLevels]:
    """One batch per training step, of an endless stream of one permutation of the images after another.

    Args:
        codes: Of all images to train on.
        batch_size: B, images per process.
        num_steps: Steps of the whole run.
        seed: Of the permutations.
        first_step: Where to start.
        rank: This process, 0..world_size - 1.
        world_size: Number of processes; all together see what one process with their images in a batch would see.
    """
    batches = _TrainingBatches(codes, batch_size, num_steps, seed, rank, world_size)
    return _Loader(batches, range(first_step, num_steps))


def code_evaluation_loader(codes: Codes, *, batch_size: int) -> DataLoader[CodeLevels]:
    """All images once, in order; the last batch may be smaller."""
    batches = _BatchesInOrder(codes, batch_size)
    return _Loader(batches, range(len(batches)))


class _Loader(DataLoader[CodeLevels]):
    def __init__(self, batches: "_TrainingBatches | _BatchesInOrder", numbers: range):
        super().__init__(batches, batch_size=None, sampler=numbers, generator=torch.Generator())
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)  # of the whole run, also for one that resumes: Lightning counts from its start


class _TrainingBatches(Dataset[CodeLevels]):
    def __init__(self, codes: Codes, batch_size: int, num_steps: int, seed: int, rank: int, world_size: int):
        self.codes, self.batch_size, self.num_steps = codes, batch_size, num_steps
        self.seed, self.rank, self.world_size = seed, rank, world_size

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, number: int) -> CodeLevels:
        first = (number * self.world_size + self.rank) * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), len(self.codes))
        places = [
            permutation(self.seed, epoch, len(self.codes))[place]
            for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True)
        ]
        images = torch.from_numpy(np.array(places))
        return tuple(level[images] for level in self.codes.levels)


class _BatchesInOrder(Dataset[CodeLevels]):
    def __init__(self, codes: Codes, batch_size: int):
        self.codes, self.batch_size = codes, batch_size

    def __len__(self) -> int:
        return -(-len(self.codes) // self.batch_size)

    def __getitem__(self, number: int) -> CodeLevels:
        first = number * self.batch_size
        return tuple(level[first : first + self.batch_size] for level in self.codes.levels)
