"""Codes of two images mixed into one, and each level on its own: what the decoder makes of them shows what codes mean.

Codes are names, not numbers: half way between code 3 and code 5 there is no code. A mix therefore takes each code
whole, from one image or from the other.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from depthq.analysis.counting import upsample_codes
from depthq.codes import Codes
from depthq.models import DQAE


def decode_each_level(model: DQAE, codes: Codes) -> list[Tensor]:
    """Images uint8 (B, C, H, W) of each level's codes alone, coarse to fine (Fig. 4)."""
    return [model.decode(codes, levels=[level]) for level in range(len(codes.levels))]


def mix_positions(a: Codes, b: Codes, count: int, *, seed: int = 0) -> Codes:
    """Codes of `a` with those of `b` at some positions of the coarsest level, at random.

    Finer levels follow the coarse position that covers them, so that every place of the image is of one origin. For
    a seed the positions taken at a small count are among those taken at a larger one.

    Args:
        a: Codes of B images.
        b: Codes of as many, of the same levels.
        count: Of positions that come from `b`, 0 to all.
        seed: Of the order in which positions change over.
    """
    grid = a.levels[0].shape[2:]
    order = torch.randperm(grid.numel(), generator=torch.Generator().manual_seed(seed), device="cpu")
    coarse = (order < count).view(1, 1, *grid)
    return _take(a, b, [upsample_codes(coarse, tuple(level.shape[2:])) for level in a.levels])


def mix_codebooks(a: Codes, b: Codes, count: int) -> Codes:
    """Codes of `a` with those of `b` in the first `count` codebooks of each level."""
    masks = [(torch.arange(level.shape[1]) < count).view(1, -1, *[1] * (level.dim() - 2)) for level in a.levels]
    return _take(a, b, masks)


def mix_levels(coarse: Codes, fine: Codes) -> Codes:
    """Level 0 of `coarse` with all finer levels of `fine`."""
    return Codes((coarse.levels[0], *fine.levels[1:]), coarse.codebook_sizes)


def _take(a: Codes, b: Codes, from_b: Sequence[Tensor]) -> Codes:
    """Codes of `b` where a level's mask, broadcast to (B, M, *positions), is true; else those of `a`."""
    levels = (
        torch.where(mask.to(mine.device), theirs, mine)
        for mask, mine, theirs in zip(from_b, a.levels, b.levels, strict=True)
    )
    return Codes(tuple(levels), a.codebook_sizes)
