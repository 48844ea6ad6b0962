"""Counts of codes, accumulated batch by batch: all that entropy and mutual information rest on."""

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, combinations, pairwise
from typing import Self

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from depthq.codes import Codes, check_codes

CodeArray = Tensor | np.ndarray
Codebook = tuple[int, int]
"""A codebook by (level, index in the level); level 0 is the coarsest."""

# Positions counted at a time: their indices and one joint table stay in a core's cache together, and torch
# runs operations of this size on one thread, without the barriers that cost most of the time on a busy
# machine.
POSITIONS_AT_ONCE = 16_384
BYTES_PER_CELL = 8
TABLES_LIMIT_BYTES = 2**30  # of the joint tables, and of those per position, in what the command line counts
CODES_CHECKED_AT_ONCE = 2**20  # checking copies them to int64: 8 MiB
MOST_CELLS_OF_A_LEVEL = 2**22  # of the table of all codebooks of a level together: 32 MiB


class CodeCounts:
    """How often each code, and each pair of codes at the same position, occurs in a sample.

    Marginal counts are kept per codebook and position, joint counts per pair of codebooks, within a level and
    across levels, and for all codebooks of a level together where that table has at most 2^22 cells. Memory is that
    of the tables, 8 bytes x (sum over pairs K_a K_b + sum over levels (positions x M x max K + product of K_m, if at
    most 2^22)), whatever the size of the sample; arrays are read some images at a time, so that a memory-mapped file
    may be larger than memory. Across levels a position of the finer grid is paired with the coarse position that
    covers it: coarse codes are brought to the finer grid by nearest upsampling, row i taking the code of row
    floor(i * H_coarse / H_fine).

    Args:
        codebook_sizes: Sizes K_m per level, coarse to fine, as in `Codes`; of a single level just its sizes.
        device: Where the tables live; batches are moved there.
        limit_bytes: If given, what the joint tables may take in all, and what those per position may: where either
            would take more, it is left out (`has_pairs`, `has_positions`), and all else is counted.

    Raises:
        ValueError: If a size is no integer of at least 1, or the tables do not fit in memory.

    Example:
        >>> counts = CodeCounts([2, 3]).update(np.array([[0, 2], [0, 2], [1, 0]]))
        >>> counts.joint((0, 0), (0, 1)).tolist()
        [[0, 0, 2], [1, 0, 0]]
    """

    def __init__(
        self,
        codebook_sizes: Sequence[int] | Sequence[Sequence[int]],
        device: torch.device | str = "cpu",
        *,
        limit_bytes: int | None = None,
    ):
        self.codebook_sizes = _as_sizes_per_level(codebook_sizes)
        self.limit_bytes = limit_bytes
        self.grids: tuple[tuple[int, ...], ...] | None = None
        """Shape of the positions of each level, () for rows without positions; None until the first batch."""
        self._device = torch.device(device)
        self._is_reduced = False
        self._positions: list[Tensor] = []  # per level (M, P, max K); P = 1 where they are not told apart
        # All joint tables lie in one buffer, so that merging and all-reducing are one operation.
        groups = [*combinations(self.codebooks, 2), *self._levels_counted_whole()]
        cells = [math.prod(self._sizes(group)) for group in groups]
        self.joint_bytes = BYTES_PER_CELL * sum(cells)
        """What the joint tables take, or would take where they are left out."""
        if not self.has_pairs:
            groups, cells = [], []
        self._starts: dict[tuple[Codebook, ...], int] = dict(zip(groups, accumulate(cells, initial=0), strict=False))
        self._joint = _new_table((sum(cells),), self._device)

    @property
    def codebooks(self) -> tuple[Codebook, ...]:
        """All codebooks, level by level, coarse to fine."""
        return tuple((level, index) for level, sizes in enumerate(self.codebook_sizes) for index in range(len(sizes)))

    @property
    def has_pairs(self) -> bool:
        """Whether joint tables are kept: of pairs, and of whole levels."""
        return self._fits(self.joint_bytes)

    @property
    def has_positions(self) -> bool:
        """Whether positions are told apart; raises ValueError before the first batch, which says how many there are."""
        self._seen(0)
        return self._fits(self.position_bytes)

    @property
    def position_bytes(self) -> int:
        """What the tables per position take, or would take where they are left out; 0 before the first batch."""
        return BYTES_PER_CELL * sum(math.prod(shape) for shape in self._position_shapes(self.grids or ()))

    @property
    def num_images(self) -> int:
        """How many images were counted."""
        if self.grids is None:
            return 0
        return int(self.marginal()[0].sum()) // math.prod(self.grids[0])

    def update(self, codes: Codes | CodeArray | Sequence[CodeArray]) -> Self:
        """Count one more batch; nothing is counted if any of it is refused.

        Args:
            codes: `Codes`, or an integer array (N, M) or (B, M, *positions), or one such array per level. Any
                integer dtype; codes of codebook m in [0, K_m); the same positions in every batch.

        Raises:
            ValueError: If codes are empty, not integers, outside [0, K_m), or do not fit the codebooks, the
                other levels or the batches before.
        """
        levels = self._as_levels(codes)
        for index, (level, sizes) in enumerate(zip(levels, self.codebook_sizes, strict=True)):
            for part in _parts(level, CODES_CHECKED_AT_ONCE // math.prod(level.shape[1:])):
                check_codes(_as_int64(part, f"codes[{index}]"), sizes, name=f"codes[{index}]")
        grids = tuple(tuple(level.shape[2:]) for level in levels)
        self._set_grids(grids)
        images_at_once = POSITIONS_AT_ONCE // max(map(math.prod, grids))
        for chunk in zip(*(_parts(level, images_at_once) for level in levels), strict=True):
            self._count([part.to(self._device) for part in chunk])
        return self

    def merge(self, other: "CodeCounts") -> Self:
        """Add the counts of another sample, as if its batches had been counted here.

        Raises:
            ValueError: If the two have different codebook sizes or positions.
        """
        if other.codebook_sizes != self.codebook_sizes:
            raise ValueError(
                f"other must have codebook_sizes {self.codebook_sizes}; got {other.codebook_sizes}; "
                "only counts of the same codebooks add up"
            )
        if other.limit_bytes != self.limit_bytes:
            raise ValueError(f"other must have limit_bytes {self.limit_bytes}; got {other.limit_bytes}")
        if other.grids is not None:
            self._set_grids(other.grids)
            for mine, theirs in zip(self._buffers(), other._buffers(), strict=True):
                mine.add_(theirs.to(self._device))
        return self

    def all_reduce(self) -> Self:
        """Merge the counts of all `torch.distributed` processes, on each of them; without any, do nothing.

        Call it once, after the last batch. Processes that saw no batch take part with zeros. The tables must live
        where the backend works: `device="cuda"` for NCCL.

        Raises:
            ValueError: On every process, if their codebook sizes, limits or positions differ, or if it was called
                before.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return self
        if self._is_reduced:
            raise ValueError("all_reduce must be called once; got a second call, which would count everything again")
        self._is_reduced = True
        gathered: list = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, (self.codebook_sizes, self.limit_bytes, self.grids))
        sizes = {sizes for sizes, _, _ in gathered}
        if len(sizes) > 1:
            raise ValueError(f"codebook_sizes must be the same on all processes; got {sorted(sizes)}")
        limits = {limit for _, limit, _ in gathered}
        if len(limits) > 1:
            raise ValueError(f"limit_bytes must be the same on all processes; got {limits}")
        seen = {grid for _, _, grid in gathered if grid is not None}
        if len(seen) > 1:
            raise ValueError(f"positions must be the same on all processes; got {sorted(seen)}")
        if seen:
            self._set_grids(seen.pop())
            for buffer in self._buffers():
                dist.all_reduce(buffer)
        return self

    def marginal(self, level: int = 0) -> Tensor:
        """Counts per codebook: int64 (M, max K); entries at or beyond K_m are zero."""
        return self._seen(level).sum(1)

    def per_position(self, level: int = 0) -> Tensor:
        """Counts per codebook and position: int64 (M, *positions, max K).

        Raises:
            ValueError: If the level does not exist, nothing has been counted, or positions are not told apart.
        """
        counts = self._seen(level)
        assert self.grids is not None
        if not self.has_positions:
            raise ValueError(
                f"counts must tell positions apart; their tables, {self.position_bytes:,} bytes, are left out as more "
                f"than limit_bytes {self.limit_bytes:,}; raise it"
            )
        return counts.view(counts.shape[0], *self.grids[level], counts.shape[-1])

    def joint(self, a: Codebook, b: Codebook) -> Tensor:
        """Counts of pairs of codes of two different codebooks at the same position: int64 (K_a, K_b).

        Across levels the positions are those of the finer grid.

        Raises:
            ValueError: If a codebook does not exist, both are the same, nothing has been counted, or joint tables are
                left out.
        """
        self._seen(0)
        if not self.has_pairs:
            raise ValueError(
                f"counts must have joint tables; theirs, {self.joint_bytes:,} bytes, are left out as more than "
                f"limit_bytes {self.limit_bytes:,}; raise it, or count fewer codebooks at a time"
            )
        if (a, b) in self._starts:
            return self._table((a, b)).view(self._sizes((a, b)))
        if (b, a) in self._starts:
            return self.joint(b, a).T
        raise ValueError(
            f"a and b must be two different codebooks (level, index) of {self.codebook_sizes}; got {a} and {b}"
        )

    def joint_of_level(self, level: int = 0) -> Tensor | None:
        """Counts of combinations of the codes of all M codebooks of a level: int64 (K_1, ..., K_M).

        None for three codebooks or more whose combinations are more than 2^22, too many for a table, and for two or
        more where joint tables are left out.
        """
        marginal, group = self._seen(level).sum(1), self._codebooks_of(level)
        if len(group) == 1:
            return marginal[0]
        return self._table(group).view(self._sizes(group)) if group in self._starts else None

    def _fits(self, num_bytes: int) -> bool:
        return self.limit_bytes is None or num_bytes <= self.limit_bytes

    def _position_shapes(self, grids: Sequence[tuple[int, ...]]) -> list[tuple[int, int, int]]:
        """Of each level's table of codes by position, (M, P, max K)."""
        return [
            (len(sizes), math.prod(grid), max(sizes)) for sizes, grid in zip(self.codebook_sizes, grids, strict=False)
        ]

    def _codebooks_of(self, level: int) -> tuple[Codebook, ...]:
        return tuple((level, index) for index in range(len(self.codebook_sizes[level])))

    def _levels_counted_whole(self) -> list[tuple[Codebook, ...]]:
        """Of three codebooks or more: those of one or two have their table in any case."""
        groups = [self._codebooks_of(level) for level, sizes in enumerate(self.codebook_sizes) if len(sizes) > 2]
        return [group for group in groups if math.prod(self._sizes(group)) <= MOST_CELLS_OF_A_LEVEL]

    def _sizes(self, codebooks: Iterable[Codebook]) -> tuple[int, ...]:
        return tuple(self.codebook_sizes[level][index] for level, index in codebooks)

    def _table(self, group: tuple[Codebook, ...]) -> Tensor:
        """Counts of the combinations of a group's codes, as one row."""
        return self._joint.narrow(0, self._starts[group], math.prod(self._sizes(group)))

    def _buffers(self) -> list[Tensor]:
        return [self._joint, *self._positions]

    def _seen(self, level: int) -> Tensor:
        if not 0 <= level < len(self.codebook_sizes):
            raise ValueError(f"level must lie in [0, {len(self.codebook_sizes)}); got {level}")
        if not self._positions:
            raise ValueError("counts must hold at least one position; got none; call update first")
        return self._positions[level]

    def _as_levels(self, codes: Codes | CodeArray | Sequence[CodeArray]) -> list[CodeArray]:
        maps: Sequence[CodeArray]
        if isinstance(codes, Codes):
            if codes.codebook_sizes != self.codebook_sizes:
                raise ValueError(f"codes must have codebook_sizes {self.codebook_sizes}; got {codes.codebook_sizes}")
            maps = codes.levels
        else:
            maps = [codes] if isinstance(codes, Tensor | np.ndarray) else codes
            if not isinstance(maps, Sequence) or not all(isinstance(level, Tensor | np.ndarray) for level in maps):
                kinds = [codes, *(maps[:1] if isinstance(maps, Sequence) else [])]
                raise ValueError(
                    "codes must be an array, or a list of one array per level; got "
                    f"{' of '.join(type(kind).__name__ for kind in kinds)}; pass numpy.asarray(codes) of the rows of a "
                    "single level"
                )
        levels = [_check_integers(level) for level in maps]
        if len(levels) != len(self.codebook_sizes):
            raise ValueError(
                f"codes must hold one array per level, {len(self.codebook_sizes)} in all; got {len(levels)}"
            )
        if len({len(level) for level in levels}) != 1:
            raise ValueError(f"codes must hold the same images at every level; got {[len(x) for x in levels]}")
        return levels

    def _set_grids(self, grids: tuple[tuple[int, ...], ...]) -> None:
        """Take the positions of the first batch; refuse others afterwards."""
        if self.grids not in (None, grids):
            raise ValueError(
                f"codes must keep the positions of the batches before, {self.grids}; got {grids}; "
                "to count positions of different images together, flatten them to rows (N, M)"
            )
        for coarse, fine in pairwise(grids):
            if len(coarse) != len(fine) or any(c > f for c, f in zip(coarse, fine, strict=True)):
                raise ValueError(f"levels must go from the coarse grid to the fine one; got {coarse} before {fine}")
        if self.grids is None:
            shapes = self._position_shapes(grids)
            if not self._fits(BYTES_PER_CELL * sum(map(math.prod, shapes))):
                shapes = [(codebooks, 1, size) for codebooks, _, size in shapes]
            self._positions = [_new_table(shape, self._device) for shape in shapes]
            self.grids = grids

    def _count(self, levels: list[Tensor]) -> None:
        for codes, counts in zip(levels, self._positions, strict=True):
            _count_positions(_codebook_rows(codes), counts)
        for fine, codes in enumerate(levels):
            grid = tuple(codes.shape[2:])
            rows = [_codebook_rows(upsample_codes(coarse, grid)) for coarse in levels[: fine + 1]]
            ones = torch.ones_like(rows[0][0])
            for group in self._starts:
                if group[-1][0] == fine:
                    columns = [rows[level][index] for level, index in group]
                    self._table(group).scatter_add_(0, _combination(columns, self._sizes(group)), ones)


def as_integer_tensor(codes: CodeArray) -> Tensor:
    """`codes` (N, M) or (B, M, *positions) as int64, refused unless integer and not empty."""
    return _as_int64(as_tensor(_check_integers(codes)), "codes")


def as_counts(counts: CodeArray, name: str = "counts") -> Tensor:
    """A table of counts as an int64 tensor, refused unless its entries are integers of at least 0."""
    if not isinstance(counts, Tensor):
        counts = np.asarray(counts)
    if not _is_integer(counts):
        raise ValueError(f"{name} must be integers; got {counts.dtype}; pass how often each code occurs, not shares")
    table = _as_int64(as_tensor(counts), name)
    if table.numel() and int(table.min()) < 0:
        raise ValueError(f"{name} must be at least 0; got {int(table.min())}; pass how often each code occurs")
    return table


def _as_int64(numbers: Tensor, name: str) -> Tensor:
    """Integers as int64, refused where they do not fit: they would turn negative."""
    converted = numbers.long()
    if numbers.dtype == torch.uint64 and converted.numel() and int(converted.min()) < 0:
        raise ValueError(f"{name} must be below 2^63; got {int(converted.min()) % 2**64}; were they negative once?")
    return converted


def upsample_codes(codes: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Bring codes (B, M, *positions) to a finer grid: index i takes the code of floor(i * coarse / fine)."""
    for axis, size in enumerate(grid, start=2):
        if codes.shape[axis] != size:
            source = torch.arange(size, device=codes.device) * codes.shape[axis] // size
            codes = codes.index_select(axis, source)
    return codes


def _combination(columns: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Number of each row's combination of codes, the last codebook counting fastest: M columns (N,) -> (N,)."""
    number = columns[0]
    for column, size in zip(columns[1:], sizes[1:], strict=True):
        number = torch.add(column, number, alpha=size)
    return number


def _check_integers(codes: CodeArray) -> CodeArray:
    if not isinstance(codes, Tensor):
        codes = np.asarray(codes)
    if not _is_integer(codes):
        raise ValueError(f"codes must be integers; got {codes.dtype}; pass the codes, not the latents")
    if codes.ndim < 2 or 0 in codes.shape:
        raise ValueError(f"codes must be (N, M) or (B, M, *positions) and not empty; got shape {tuple(codes.shape)}")
    return codes


def _is_integer(codes: CodeArray) -> bool:
    if isinstance(codes, np.ndarray):
        return codes.dtype.kind in "iu"
    return not (codes.dtype.is_floating_point or codes.dtype.is_complex or codes.dtype == torch.bool)


def _parts(codes: CodeArray, images_at_once: int) -> Iterator[Tensor]:
    """`codes` (B, M, *positions) as tensors of so many images, at least one."""
    images_at_once = max(1, images_at_once)
    for start in range(0, len(codes), images_at_once):
        yield as_tensor(codes[start : start + images_at_once])


def as_tensor(array: Tensor | np.ndarray) -> Tensor:
    """The array as a tensor; a copy of what torch cannot share: read-only (memory-mapped) or foreign in byte order."""
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array)
    return torch.from_numpy(np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "W"]))


def _new_table(shape: tuple[int, ...], device: torch.device) -> Tensor:
    num_bytes = BYTES_PER_CELL * math.prod(shape)
    try:
        return torch.zeros(shape, dtype=torch.int64, device=device)
    except (RuntimeError, TypeError) as error:  # the allocator's, and that of numbers beyond 64 bits
        raise ValueError(
            f"codebook_sizes must leave tables that memory holds; got one of {num_bytes:,} bytes on {device} for shape "
            f"{shape}; count fewer codebooks at a time, flatten positions to rows (N, M), or set limit_bytes"
        ) from error


def _as_sizes_per_level(sizes: Sequence) -> tuple[tuple[int, ...], ...]:
    try:
        levels = [sizes] if all(np.ndim(size) == 0 for size in sizes) else sizes
        levels = tuple(tuple(operator.index(size) for size in level) for level in levels)
    except TypeError as error:
        raise ValueError(
            f"codebook_sizes must be integers, of each level; got {sizes}; pass [K] for a single codebook"
        ) from error
    if not all(levels) or any(size < 1 for level in levels for size in level):
        raise ValueError(f"codebook_sizes must hold sizes of at least 1 for each level; got {sizes}")
    return levels


def _codebook_rows(codes: Tensor) -> list[Tensor]:
    """Codes (B, M, *positions) as M rows int64 (B * positions,)."""
    return [row.reshape(-1).long() for row in codes.unbind(1)]


def _count_positions(rows: list[Tensor], counts: Tensor) -> None:
    """Add M rows of codes (B * P,) to counts (M, P, K)."""
    _, positions, size = counts.shape
    place = size * torch.arange(len(rows[0]), device=counts.device).remainder(positions)
    ones = torch.ones_like(place)
    for row, table in zip(rows, counts, strict=True):
        table.view(-1).scatter_add_(0, place + row, ones)
