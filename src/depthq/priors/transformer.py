"""A prior that is trained: one transformer over positions, and the codes of a position at once or one by one."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthq.codes import Codes
from depthq.priors.base import CodePrior, Grid, Group, grids_of

Factorization = Literal["parallel", "sequential"]


class TransformerPrior(CodePrior, kind="transformer"):
    """Autoregression over positions: levels coarse to fine, raster within a level.

    A position's input is where it is (level, row and column), and the sums of the embeddings of the codes of three
    positions that are known by then: the one before it, the one above it, and its parent, the position of the next
    coarser level that covers it. What was said longer ago reaches it by causal attention.

    The M codes of a position: "parallel" predicts all at once, as independent of each other, which costs bits if they
    are not; "sequential" predicts one after the other by a small head of each that sees the codes before.

    On another grid than the trained one, the embeddings of rows and columns are interpolated: it stays a distribution,
    a better one the closer the grids are. Attention takes time in the square of the number of positions. Evaluation and
    files therefore cut codes of larger images into tiles: `depthq.priors.tiles`.

    Args:
        codebook_sizes: Per level, coarse to fine, K of each codebook.
        grids: Per level (H, W) of the codes to train on.
        factorization: How the codes of a position are predicted.
        width: Of the hidden state of a position; a multiple of `num_heads`.
        num_layers: Blocks of attention and a perceptron.
        num_heads: Of the attention.

    Raises:
        ValueError: If an argument is out of its range.
    """

    suits_any_grid = False

    embeddings: "Sequence[CodeEmbedding]"  # each an nn.ModuleList, which does not say of what
    places: "Sequence[PlaceEmbedding]"
    heads: "Sequence[ParallelHead] | Sequence[SequentialHead]"

    def __init__(
        self,
        codebook_sizes: Sequence[Sequence[int]],
        grids: Sequence[Sequence[int]],
        factorization: Factorization = "sequential",
        width: int = 128,
        num_layers: int = 3,
        num_heads: int = 4,
    ):
        super().__init__(
            codebook_sizes, grids, factorization=factorization, width=width, num_layers=num_layers, num_heads=num_heads
        )
        if factorization not in ("parallel", "sequential"):
            raise ValueError(f"factorization must be parallel or sequential; got {factorization!r}")
        if min(width, num_layers, num_heads) < 1 or width % num_heads:
            raise ValueError(
                "width, num_layers and num_heads must be at least 1, and width a multiple of num_heads; "
                f"got {width}, {num_layers} and {num_heads}"
            )
        self.embeddings = nn.ModuleList(CodeEmbedding(sizes, width) for sizes in self.codebook_sizes)  # type: ignore[assignment]
        self.places = nn.ModuleList(PlaceEmbedding(grid, width) for grid in self.grids)  # type: ignore[assignment]
        self.nothing = nn.Parameter(torch.zeros(width))
        self.known = nn.Linear(3 * width, width, bias=False)
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(num_layers))
        head = ParallelHead if factorization == "parallel" else SequentialHead
        self.heads = nn.ModuleList(head(sizes, width) for sizes in self.codebook_sizes)  # type: ignore[assignment]

    def forward(self, codes: Codes) -> Tensor:
        """-log p of each code: float32 (B, T), summed over the codebooks of each of the T positions; nats."""
        grids = grids_of(codes)
        levels = [level.flatten(2) for level in codes.levels]
        embedded = [embed(level) for embed, level in zip(self.embeddings, levels, strict=True)]
        embedded = torch.cat([*embedded, self.nothing.expand(len(codes), 1, -1)], dim=1)
        hidden = self._inputs(embedded, self._known(grids), self._where(grids))
        for block in self.blocks:
            hidden = block(hidden)
        per_level = hidden.split([height * width for height, width in grids], dim=1)
        costs = [head.nll_nats(*of_level) for head, *of_level in zip(self.heads, per_level, levels, strict=True)]
        return torch.cat(costs, dim=1)

    def _nll_nats(self, codes: Codes) -> Tensor:
        return self(codes.to(self.device)).double().sum(1)

    def walk(self, levels: Sequence[Tensor], grids: Sequence[Grid]) -> Iterator[Group]:
        """As `CodePrior.walk`. What attention made of earlier positions is kept, so each costs the same but for it."""
        known, places = self._known(tuple(grids)), self._where(grids)
        embedded = self.nothing.repeat(len(levels[0]), len(known) + 1, 1)
        caches = [(torch.empty_like(embedded), torch.empty_like(embedded)) for _ in self.blocks]
        index = 0
        for level, codes in enumerate(levels):
            for position in range(codes.shape[2]):
                here = slice(index, index + 1)
                hidden = self._inputs(embedded, known[here], places[here])
                for block, cache in zip(self.blocks, caches, strict=True):
                    hidden = block(hidden, cache, index)
                yield from self._groups(level, position, hidden.squeeze(1), codes)
                embedded[:, here] = self.embeddings[level](codes[:, :, position : position + 1])
                index += 1

    def _known(self, grids: tuple[Grid, ...]) -> Tensor:
        """`known_positions`, int64 (T, 3)."""
        return torch.from_numpy(known_positions(grids)).to(self.device)

    def _groups(self, level: int, position: int, hidden: Tensor, codes: Tensor) -> Iterator[Group]:
        head, num_codebooks = self.heads[level], codes.shape[1]
        if isinstance(head, ParallelHead):
            yield Group(level, position, range(num_codebooks), head.logits(hidden))
            return
        for codebook in range(num_codebooks):
            logits = head.logits(hidden, codebook)
            yield Group(level, position, range(codebook, codebook + 1), [logits])
            hidden = head.add(hidden, codebook, codes[:, codebook, position])

    def _inputs(self, embedded: Tensor, known: Tensor, places: Tensor) -> Tensor:
        """(B, N, width) of N positions: what is known, (N, 3) indices into embedded (B, T + 1, width), and where."""
        return self.known(embedded[:, known].flatten(2)) + places

    def _where(self, grids: Sequence[Grid]) -> Tensor:
        """(T, width) of the T positions of all levels."""
        return torch.cat([place(grid) for place, grid in zip(self.places, grids, strict=True)])


class CodeEmbedding(nn.Module):
    """The sum of the embeddings of a position's codes: int64 (B, M, N) to (B, N, width)."""

    def __init__(self, sizes: Sequence[int], width: int):
        super().__init__()
        self.table = nn.Embedding(sum(sizes), width)
        nn.init.normal_(self.table.weight, std=len(sizes) ** -0.5)
        first = [0, *accumulate(sizes)][:-1]
        self.first: Tensor
        self.register_buffer("first", torch.tensor(first)[:, None], persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        return self.table(codes + self.first).sum(1)


class PlaceEmbedding(nn.Module):
    """Where in its level a position is: a vector per row and one per column, interpolated on another grid."""

    def __init__(self, grid: Grid, width: int):
        super().__init__()
        self.rows, self.columns = (nn.Parameter(0.02 * torch.randn(1, width, length)) for length in grid)

    def forward(self, grid: Grid) -> Tensor:
        """(H W, width)."""
        rows, columns = (_resized(along, length) for along, length in zip((self.rows, self.columns), grid, strict=True))
        return (rows[:, None] + columns).flatten(0, 1)


class Block(nn.Module):
    """Causal attention, then a perceptron, each on what a layer norm leaves and added to what there was."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, cache: tuple[Tensor, Tensor] | None = None, index: int = 0) -> Tensor:
        """x (B, N, width): all positions from the first on, or, with keys and values kept in a cache, position `index`.

        Args:
            x: What comes in.
            cache: Keys and values (B, T, width) of the positions before `index`; those of this one are written there.
            index: Of the one position that x is, with a cache.
        """
        query, key, value = self.queries_keys_values(self.attention_norm(x)).chunk(3, dim=2)
        if cache is not None:
            for kept, new in zip(cache, (key, value), strict=True):
                kept[:, index] = new[:, 0]
            key, value = (kept[:, : index + 1] for kept in cache)
        query, key, value = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.perceptron(self.perceptron_norm(x))


class ParallelHead(nn.Module):
    """All codes of a position at once, independent of each other given the positions before."""

    def __init__(self, sizes: Sequence[int], width: int):
        super().__init__()
        self.sizes = list(sizes)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, sum(sizes))

    def logits(self, hidden: Tensor) -> list[Tensor]:
        """(..., K) of each codebook, from hidden (..., width)."""
        return list(self.out(self.norm(hidden)).split(self.sizes, dim=-1))

    def nll_nats(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """(B, N) from hidden (B, N, width) and codes (B, M, N)."""
        costs = [_cost(logits, at) for logits, at in zip(self.logits(hidden), codes.unbind(1), strict=True)]
        return torch.stack(costs).sum(0)


class SequentialHead(nn.Module):
    """One code of a position after the other: each by a perceptron that sees the embeddings of those before."""

    def __init__(self, sizes: Sequence[int], width: int):
        super().__init__()
        self.perceptrons = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, size))
            for size in sizes
        )
        self.earlier = nn.ModuleList(nn.Embedding(size, width) for size in sizes[:-1])

    def logits(self, hidden: Tensor, codebook: int) -> Tensor:
        """(..., K) of a codebook, from hidden (..., width), to which the codes before have been added."""
        return self.perceptrons[codebook](hidden)

    def add(self, hidden: Tensor, codebook: int, codes: Tensor) -> Tensor:
        """What the next codebook sees, codes (...) of this one being known."""
        return hidden + self.earlier[codebook](codes) if codebook < len(self.earlier) else hidden

    def nll_nats(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """(B, N) from hidden (B, N, width) and codes (B, M, N)."""
        total = hidden.new_zeros(hidden.shape[:2])
        for codebook, at in enumerate(codes.unbind(1)):
            total = total + _cost(self.logits(hidden, codebook), at)
            hidden = self.add(hidden, codebook, at)
        return total


@lru_cache(maxsize=16)
def known_positions(grids: tuple[Grid, ...]) -> np.ndarray:
    """int64 (T, 3): of each of T positions the one before, the one above and the parent; T where there is none."""
    total = sum(height * width for height, width in grids)
    known, first, coarser = [], 0, None
    for height, width in grids:
        for row in range(height):
            for column in range(width):
                index, parent = first + row * width + column, total
                if coarser is not None:
                    coarser_first, (coarser_height, coarser_width) = coarser
                    covering = row * coarser_height // height * coarser_width + column * coarser_width // width
                    parent = coarser_first + covering
                known.append((index - 1 if index else total, index - width if row else total, parent))
        coarser = (first, (height, width))
        first += height * width
    return np.array(known, np.int64)  # no tensor: a cached one could have been born in inference mode


def _cost(logits: Tensor, codes: Tensor) -> Tensor:
    """-log p (B, N) in nats of codes (B, N) under logits (B, N, K), in float32 or better."""
    if logits.dtype != torch.float64:
        logits = logits.float()
    return F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(codes.shape)


def _resized(along: Tensor, length: int) -> Tensor:
    """(length, width) of (1, width, trained length)."""
    if along.shape[2] != length:
        along = F.interpolate(along, size=length, mode="linear", align_corners=True)
    return along[0].t()
