"""Tables whose cells are coloured by their value, each with what is said of it under the pointer."""

from dataclasses import dataclass

import numpy as np

from depthq.analysis.summary import CodeSummary
from depthq.report.plots import entropy_map, short_number
from depthq.units import nats_to_bits

MAX_COLUMNS_WITH_VALUES = 12  # above, values no longer fit into the cells of a phone


@dataclass(frozen=True)
class Cell:
    value: str
    share: float | None
    """Of the colour scale, 0..1; None for a cell without colour."""
    remark: str
    """Where it lies and what it is worth, with its unit."""


@dataclass(frozen=True)
class HeatMap:
    title: str
    unit: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    """Name and cells."""
    low: float
    """Value at the start of the colour scale."""
    high: float
    breaks: frozenset[int] = frozenset()
    """Rows and columns in front of which a line is drawn."""

    @property
    def ends(self) -> tuple[str, str]:
        """Of the colour scale."""
        return short_number(self.low), short_number(self.high)

    @property
    def shows_values(self) -> bool:
        return len(self.columns) <= MAX_COLUMNS_WITH_VALUES


def information_map(codes: CodeSummary) -> HeatMap | None:
    """Mutual information of each pair of codebooks; entropy, without colour, on the diagonal. None where pairs were
    left out.
    """
    matrices = [pairs.matrix_nats for pairs in codes.mutual_information]
    if any(matrix is None for matrix in matrices):
        return None
    plugin, shuffle, miller_madow = (nats_to_bits(np.array(matrix)).tolist() for matrix in matrices)
    high = max((value for row, values in enumerate(plugin) for value in values[:row]), default=0.0)

    def cell(row: int, column: int) -> Cell:
        value, a, b = plugin[row][column], codes.codebooks[row], codes.codebooks[column]
        if row == column:
            return Cell(short_number(value), None, f"entropy of codebook {a}: {value:.3f} bits")
        corrected = f"{shuffle[row][column]:.3f} by shuffle, {miller_madow[row][column]:.3f} by Miller-Madow"
        return _cell(value, 0, high, f"{a} and {b} share {value:.3f} bits, {corrected}")

    indices = range(len(codes.codebooks))
    level_of = [name.split(".")[0] for name in codes.codebooks]
    return HeatMap(
        title="Mutual information between codebooks",
        unit="bits",
        columns=tuple(codes.codebooks),
        rows=tuple((codes.codebooks[row], tuple(cell(row, column) for column in indices)) for row in indices),
        low=0,
        high=high,
        breaks=frozenset(index for index in indices[1:] if level_of[index] != level_of[index - 1]),
    )


def entropy_maps(codes: CodeSummary) -> list[HeatMap]:
    """Entropy at each position, one map per level that has positions, each with its own scale."""
    maps = {f"Level {number}": entropy_map(level) for number, level in enumerate(codes.levels)}
    return [
        _entropy_map(title, nats_to_bits(positions).tolist())
        for title, positions in maps.items()
        if positions is not None
    ]


def _entropy_map(title: str, grid: list[list[float]]) -> HeatMap:
    low, high = float(np.min(grid)), float(np.max(grid))
    return HeatMap(
        title=f"{title}, {len(grid)} x {len(grid[0])} positions",
        unit="bits",
        columns=tuple(str(column) for column in range(len(grid[0]))),
        rows=tuple(
            (
                str(row),
                tuple(
                    _cell(value, low, high, f"row {row}, column {column}: {value:.3f} bits")
                    for column, value in enumerate(values)
                ),
            )
            for row, values in enumerate(grid)
        ),
        low=low,
        high=high,
    )


def _cell(value: float, low: float, high: float, remark: str) -> Cell:
    return Cell(short_number(value), (value - low) / (high - low) if high > low else 0.0, remark)
