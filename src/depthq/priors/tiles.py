"""Codes of images larger than those that a prior was made for, cut into tiles of the trained grid.

Attention takes time in the square of the number of positions, and has seen no other grid than the trained one. So
evaluation and files have such a prior price, and draw, each tile as an image of its own. Nothing is known of the tile
beside it: what that costs is told in docs/prior.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from depthq.codes import Codes
from depthq.priors.base import CodePrior, Grid, grids_of

TILES_AT_ONCE = 512
"""Of an image, for the memory of attention."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of one size that lie side by side, in positions of the coarsest level."""

    top: int
    left: int
    height: int
    width: int
    down: int
    """How many there are from top to bottom."""
    across: int
    """How many from left to right."""
    scales: tuple[Grid, ...]
    """Per level, how many of its positions (down, across) lie in one of the coarsest level."""

    @property
    def grids(self) -> tuple[Grid, ...]:
        """(H, W) of a tile per level."""
        return tuple((self.height * rows, self.width * columns) for rows, columns in self.scales)

    def cut(self, level: Tensor, scale: Grid) -> Tensor:
        """(B down across, M, h, w) of a level (B, M, H, W)."""
        region = self._region(level, scale)
        tiles = region.unflatten(3, (self.across, -1)).unflatten(2, (self.down, -1))  # (B, M, down, h, across, w)
        return tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)

    def paste(self, tiles: Tensor, level: Tensor, scale: Grid) -> None:
        """Write what `cut` gave to where it was in a level."""
        apart = tiles.unflatten(0, (-1, self.down, self.across)).permute(0, 3, 1, 4, 2, 5)
        self._region(level, scale).copy_(apart.flatten(4, 5).flatten(2, 3))

    def _region(self, level: Tensor, scale: Grid) -> Tensor:
        rows, columns = scale
        top, left = self.top * rows, self.left * columns
        return level[:, :, top : top + self.down * self.height * rows, left : left + self.across * self.width * columns]


def tiles_of(prior: CodePrior, grids: Sequence[Grid]) -> list[Tiles]:
    """How codes on these grids (H, W) per level are cut: some rows of tiles of the trained grid at a time, and what is
    left over to the right, below, and in the corner. None where the prior suits any grid, or levels are no multiples of
    the coarsest.
    """
    (height, width), scales = grids[0], _scales(grids)
    if prior.suits_any_grid or scales is None or scales != _scales(prior.grids):
        return []
    return [
        Tiles(top + start * tall, left, tall, wide, min(rows, down - start), across, scales)
        for top, tall, down in _parts(height, prior.grids[0][0])
        for left, wide, across in _parts(width, prior.grids[0][1])
        for rows in [max(1, TILES_AT_ONCE // across)]
        for start in range(0, down, rows)
    ]


def nll_nats_of_tiles(prior: CodePrior, codes: Codes) -> Tensor:
    """`prior.nll_nats` of codes (B,), float64, tile by tile where they are of larger images than it was made for."""
    parts = tiles_of(prior, grids_of(codes))
    if not parts:
        return prior.nll_nats(codes)
    total = torch.zeros(len(codes), dtype=torch.float64, device=prior.device)
    for tiles in parts:
        total += prior.nll_nats(cut(codes, tiles)).view(len(codes), -1).sum(1)
    return total


def cut(codes: Codes, tiles: Tiles) -> Codes:
    """The codes of some tiles as a batch of their own."""
    levels = (tiles.cut(level, scale) for level, scale in zip(codes.levels, tiles.scales, strict=True))
    return Codes.unchecked(tuple(levels), codes.codebook_sizes)


def _scales(grids: Sequence[Grid]) -> tuple[Grid, ...] | None:
    height, width = grids[0]
    if any(rows % height or columns % width for rows, columns in grids):
        return None
    return tuple((rows // height, columns // width) for rows, columns in grids)


def _parts(length: int, tile: int) -> Iterator[tuple[int, int, int]]:
    """Start, length and number of the whole tiles along a side, and of what is left over."""
    count, rest = divmod(length, tile)
    if count:
        yield 0, tile, count
    if rest:
        yield count * tile, rest, 1
