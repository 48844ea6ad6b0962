"""Quantizers whose codewords are the points of a grid: nothing to learn, and codes by rounding instead of a search."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from depthq.quantizers.base import Quantizer, keep_columns
from depthq.quantizers.health import CodebookHealth
from depthq.quantizers.kept_state import KeptState
from depthq.quantizers.output import QuantizedRows
from depthq.quantizers.processes import GlobalRows

DECAY = 0.99
"""Of the moving average that `health` tells of."""
MOST_CODES = 2**24
"""Largest K: the count of each code takes 64 MiB per codebook there."""


class GridState(KeptState):
    """How often the codes of M equal codebooks have been used of late.

    Args:
        num_codebooks: M.
        values_per_dim: L_i, how many values each of a codebook's d dimensions takes; K is their product.
    """

    MUST_MATCH: ClassVar = {"codebook_sizes": "codebook_size", "values_per_dim": "values_per_dim"}

    recent_count: Tensor

    def __init__(self, num_codebooks: int, values_per_dim: Sequence[int]):
        super().__init__()
        self.values_per_dim = tuple(values_per_dim)
        self.codebook_sizes = (math.prod(values_per_dim),) * num_codebooks
        self.register_buffer("recent_count", torch.zeros(num_codebooks, self.codebook_sizes[0], dtype=torch.float32))

    @torch.no_grad()
    def accumulate(self, codes: Tensor, rows: GlobalRows) -> None:
        """Fold the codes (N, M) of a step into the moving average, those of all processes."""
        if self.is_frozen:
            return
        counts = torch.zeros_like(self.recent_count)
        counts.scatter_add_(1, codes.t(), torch.ones_like(codes.t(), dtype=counts.dtype))
        rows.sum_over_processes(counts)
        self.fold(self.recent_count, counts, DECAY)


def check_codebook_size(codebook_size: int) -> None:
    """Raises ValueError if there are too many codes to count how often each is used."""
    if codebook_size > MOST_CODES:
        raise ValueError(
            f"codebook_size must be at most {MOST_CODES} = 2**24, since uses of each code are counted; "
            f"got {codebook_size}; take more codebooks"
        )


class GridQuantizer(Quantizer):
    """Cuts the axis into M slices of d dimensions, and rounds each to a point of the same fixed grid.

    A point is given by its digits, one per dimension, digit i in [0, L_i); its code is the number that they write, the
    first digit the least significant: digit_0 + L_0 digit_1 + L_0 L_1 digit_2 + ...

    Shapes: as `Quantizer`; `slots` (N, M, d) are the slices of N rows, `digits` int64 (N, M, d).

    Args:
        state: Of M codebooks with L_i values for each of the d dimensions of a slice; `dim` is M * d.
        axis: The axis that is split; any but the batch's (0).
        commitment_weight: beta of Eq. 5, finite and at least 0.
        check_finite: Refuse NaN and infinity in training.
        codebook_dropout: Share, in [0, 1), of a training step's entries of the batch that are quantized by their first
            codebooks alone.
    """

    def __init__(
        self,
        state: GridState,
        *,
        axis: int = 1,
        commitment_weight: float = 0.0,
        check_finite: bool = True,
        codebook_dropout: float = 0.0,
    ):
        dim = len(state.codebook_sizes) * len(state.values_per_dim)
        super().__init__(
            dim,
            dim,
            state.codebook_sizes,
            axis=axis,
            commitment_weight=commitment_weight,
            check_finite=check_finite,
            codebook_dropout=codebook_dropout,
        )
        self.state = state

    @property
    def values_per_dim(self) -> tuple[int, ...]:
        """L_i, how many values each dimension of a slice takes."""
        return self.state.values_per_dim

    @property
    def codebooks(self) -> Tensor:
        """All codewords, (M, K, d); the same for each of the M."""
        codes = torch.arange(self.codebook_sizes[0], device=self.state.recent_count.device)
        return self._points(self._digits_of(codes)).expand(self.num_codebooks, -1, -1)

    def health(self) -> CodebookHealth:
        """How the codes have been used of late; print it for a table. Computed when called."""
        mean_norm = self._mean_norm().expand(self.num_codebooks)
        redrawn = torch.zeros_like(mean_norm, dtype=torch.int64)
        return CodebookHealth.from_counts(self.state.recent_count, redrawn, mean_norm, self.codebook_sizes)

    def _mean_norm(self) -> Tensor:
        """Of all codewords, scalar: from one number for each, as there may be millions."""
        digits = torch.arange(max(self.values_per_dim), device=self.state.recent_count.device)
        # Column i: the values of dimension i, the first L_i of them.
        values = self._points(digits[:, None].expand(-1, len(self.values_per_dim)))
        squares = values.new_zeros(1)
        for of_dim, count in zip(values.square().unbind(1), self.values_per_dim, strict=True):
            squares = (squares[:, None] + of_dim[:count]).flatten()
        return squares.sqrt().mean()

    @abstractmethod
    def _digits(self, slots: Tensor) -> Tensor:
        """The digits of the point that each slice goes to."""

    @abstractmethod
    def _points(self, digits: Tensor) -> Tensor:
        """Digits (..., d) to points, float32 (..., d)."""

    @abstractmethod
    def _pass_through(self, slots: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`points`, bit for bit, with the gradient to `slots`; the commitment loss; the entropy loss."""

    def _quantize(self, rows: Tensor, global_rows: GlobalRows | None) -> QuantizedRows:
        slots = self._slots(rows)
        digits = self._digits(slots.detach())
        codes = self._codes_of(digits)
        if global_rows is not None:
            self.state.accumulate(codes, global_rows)
        quantized, commitment_loss, entropy_loss = self._pass_through(slots, self._points(digits))
        return QuantizedRows(quantized.flatten(1), codes, commitment_loss, rows.new_zeros(()), entropy_loss)

    def _search(self, rows: Tensor) -> Tensor:
        return self._codes_of(self._digits(self._slots(rows)))

    def _lookup(self, codes: Tensor) -> Tensor:
        return self._points(self._digits_of(codes)).flatten(1)

    def _keep(self, quantized: Tensor, codes: Tensor, num_kept: Tensor) -> Tensor:
        return keep_columns(quantized, (len(self.values_per_dim),) * self.num_codebooks, num_kept)

    def _slots(self, rows: Tensor) -> Tensor:
        return rows.unflatten(1, (self.num_codebooks, -1))

    def _codes_of(self, digits: Tensor) -> Tensor:
        return (digits * self._steps(digits)).sum(-1)

    def _digits_of(self, codes: Tensor) -> Tensor:
        return codes[..., None] // self._steps(codes) % codes.new_tensor(self.values_per_dim)

    def _steps(self, like: Tensor) -> Tensor:
        """What one step of each digit adds to the code."""
        return like.new_tensor([math.prod(self.values_per_dim[:i]) for i in range(len(self.values_per_dim))])
