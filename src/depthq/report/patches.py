"""What a code means: the patches of images that use it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from depthq.models import DQAE

CODES_SHOWN = 6
PATCHES_SHOWN = 8
_FEWEST_PX = 12
"""A patch of a fine level shows what lies around its position too, up to about so many pixels."""


@dataclass(frozen=True)
class CodePatches:
    """Where one code of one codebook occurs."""

    level: int
    codebook: int
    code: int
    share: float
    """Of all positions that use it."""
    patches: Tensor
    """uint8 (N, C, S, S), N up to 8, each around a position with this code, of as many images as there are."""


@torch.no_grad()
def patches_of_codes(model: DQAE, images: Tensor, codebook: int = 0) -> list[CodePatches]:
    """Of each level the codes of one codebook that occur most, each with patches that use it.

    Args:
        model: With codebooks.
        images: uint8 (B, C, H, W), of sides that its strides divide.
        codebook: Of each level.
    """
    found = []
    for level, codes in enumerate(model.encode(images.to(model.device)).levels):
        grid = codes[:, codebook].cpu()  # (B, h, w)
        counts = torch.bincount(grid.flatten(), minlength=model.codebook_sizes[level][codebook])
        for code in counts.argsort(descending=True, stable=True)[:CODES_SHOWN].tolist():
            if counts[code]:
                places = _places((grid == code).nonzero().tolist())
                stride = images.shape[-1] // grid.shape[-1]
                share = int(counts[code]) / grid.numel()
                found.append(CodePatches(level, codebook, code, share, _cut(images, places, stride)))
    return found


def _places(found: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """(image, row, column): first one of each image, then more of the same."""
    seen: dict[int, int] = {}
    ranked = []
    for image, row, column in found:
        ranked.append((seen.get(image, 0), image, row, column))
        seen[image] = seen.get(image, 0) + 1
    return [(image, row, column) for _, image, row, column in sorted(ranked)[:PATCHES_SHOWN]]


def _cut(images: Tensor, places: Sequence[tuple[int, int, int]], stride: int) -> Tensor:
    margin = max(0, -(-(_FEWEST_PX - stride) // 2))
    padded = torch.nn.functional.pad(images.float(), (margin,) * 4, mode="replicate").to(torch.uint8)
    side = stride + 2 * margin
    return torch.stack(
        [
            padded[image, :, row * stride : row * stride + side, column * stride : column * stride + side]
            for image, row, column in places
        ]
    )
