"""Codebooks from features alone: mini-batch k-means with a k-means++ start."""

import contextlib
import copy
import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from depthq.quantizers.learned import LearnedQuantizer

Features = np.ndarray | Tensor | Iterable[np.ndarray | Tensor]


def fit(
    quantizer: "LearnedQuantizer", features: Features, *, steps: int, batch_size: int, seed: int, progress: bool
) -> None:
    """Train a quantizer's codebooks on features, through the same upkeep as in a network.

    Each step is one batch of mini-batch k-means (Sculley, 2010): until 1 / (1 - decay) steps have passed, codewords are
    the plain mean of all vectors that chose them; from then on a moving one. Rare codes are re-drawn as ever. With
    several processes each brings its own features, they fit one model, and plain draws replace k-means++.

    Args:
        quantizer: Its codebooks are set anew, all of them in every step; `codebook_update` must be "ema", and it must
            not be frozen.
        features: An array or tensor of what `quantizer` takes as x, of any length (a memory-mapped one is read batch by
            batch), or an iterable of such batches.
        steps: Batches to learn from; fewer if an iterable ends before, at least 1.
        batch_size: Vectors per batch along the array's first axis, drawn at random; an iterable has its own.
        seed: Of the draws.
        progress: Show a bar with the mean squared distance, where tqdm is installed.

    Raises:
        ValueError: If there are no features, they are no x for this quantizer, or a number is out of range. Whatever
            the error, the codebooks and their statistics are then as they were before.
    """
    _check(quantizer, steps, batch_size)
    state, was_training, decay = quantizer.state, quantizer.training, quantizer.state.decay
    batches = _batches(features, steps, batch_size, np.random.default_rng(seed))
    before = copy.deepcopy(state.state_dict())
    try:
        state.reset()
        state.fitting = True
        quantizer.train()
        with torch.no_grad(), _progress_bar(steps) if progress else contextlib.nullcontext() as bar:
            for step, batch in enumerate(batches):
                state.decay = min(decay, step / (step + 1))
                batch = batch.to(state.weight.device)
                if bar is None:
                    quantizer._learn(batch)
                else:
                    out = quantizer(batch)
                    bar.set_postfix(mse=f"{float(quantizer._mean_squared_error(batch, out)):.4g}", refresh=False)
                    bar.update()
        if not state.num_updates:
            raise ValueError("features must hold at least one vector; got none")
        state.move_to_ema()
    except BaseException:
        state.load_state_dict(before)
        raise
    finally:
        state.decay, state.fitting = decay, False
        quantizer.train(was_training)


def _progress_bar(steps: int) -> AbstractContextManager[Any]:
    """tqdm's, or None without it: features are fitted just as well unseen."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return contextlib.nullcontext()
    return tqdm(total=steps, desc="fit")


def _check(quantizer: "LearnedQuantizer", steps: int, batch_size: int) -> None:
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    if quantizer.is_frozen:
        raise ValueError(
            "quantizer must not be frozen for fit, which sets codebooks anew; got a frozen one; unfreeze() it"
        )
    if quantizer.project_in is not None:
        raise ValueError(
            "codebook_dim must be the slice's width for fit, which learns codebooks alone; got a projection in front "
            "of them; project the features first"
        )
    if quantizer.state.update != "ema":
        raise ValueError(f"codebook_update must be 'ema' for fit; got {quantizer.state.update!r}")


def _batches(features: Features, steps: int, batch_size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """At most `steps` batches, of random entries if `features` is an array."""
    if not isinstance(features, np.ndarray | Tensor):
        yield from map(torch.as_tensor, itertools.islice(features, steps))
        return
    for _ in range(steps if len(features) else 0):
        yield torch.as_tensor(features[draw_rows(rng, len(features), batch_size)])


def draw_rows(rng: np.random.Generator, total: int, wanted: int) -> np.ndarray:
    """Which rows to learn from: `wanted` of them ascending, so that a memory-mapped file is read in one direction.

    Where there are no more than that, all of them in random order: else a seed would decide on nothing.
    """
    if wanted >= total:
        return rng.permutation(total)
    return np.sort(rng.choice(total, wanted, replace=False, shuffle=False))
