"""Finite scalar quantization (Mentzer et al. 2023): each number is rounded on its own."""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from depthq.quantizers.base import as_size
from depthq.quantizers.grid import GridQuantizer, GridState, check_codebook_size
from depthq.quantizers.straight_through import pass_gradient

FEWEST_VALUES, USUAL_VALUES, MOST_VALUES = 3, 8, 16
MARGIN = 1e-3
"""How far the bound lies beyond the outermost values, as a share of their distance from the middle."""


class ScalarQuantizer(GridQuantizer):
    """Bounds each dimension of M slices and rounds it to one of a few values; the codebook of a slice is their product.

    Nothing is learned and no loss is needed: the gradient passes the rounding straight through, and the bounding as it
    is. Zero is always a value. Not in the paper: for comparisons at equal bits, and where codebooks collapse.

    Args:
        dim: Size M * d of the split axis, d dimensions in each slice.
        num_codebooks: M, the number of slices.
        codebook_size: K, the product of the d numbers of values; at most 2**24.
        values_per_dim: These d numbers, each at least 3; by default K cut into the d factors nearest to each other, in
            falling order: 512 over 3 is 8, 8, 8, and 128 over 3 is 8, 4, 4.
        axis: The axis that is split; any but the batch's (0).
        check_finite: Refuse NaN and infinity in training, at the price of one pass over the input (on a GPU also of one
            synchronisation).
        codebook_dropout: Share, in [0, 1), of a training step's entries of the batch that are quantized by their first
            codebooks alone.

    Raises:
        ValueError: If a size or `codebook_dropout` is out of range, or sizes do not fit together.

    Example:
        >>> quantizer = ScalarQuantizer(dim=15, num_codebooks=5, codebook_size=128)
        >>> quantizer.values_per_dim
        (8, 4, 4)
        >>> quantizer(torch.randn(4, 15, 8, 8)).codes.shape
        torch.Size([4, 5, 8, 8])
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int,
        *,
        values_per_dim: Sequence[int] | None = None,
        axis: int = 1,
        check_finite: bool = True,
        codebook_dropout: float = 0.0,
    ):
        dim, num_codebooks = as_size("dim", dim), as_size("num_codebooks", num_codebooks)
        codebook_size = as_size("codebook_size", codebook_size)
        check_codebook_size(codebook_size)
        if dim % num_codebooks:
            raise ValueError(f"dim must be a multiple of num_codebooks={num_codebooks}; got {dim}")
        dims_per_slice = dim // num_codebooks
        if values_per_dim is None:
            values_per_dim = balanced_factors(codebook_size, dims_per_slice)
        else:
            values_per_dim = _checked(values_per_dim, codebook_size, dims_per_slice)
        super().__init__(
            GridState(num_codebooks, values_per_dim),
            axis=axis,
            check_finite=check_finite,
            codebook_dropout=codebook_dropout,
        )
        values = torch.tensor(self.values_per_dim, dtype=torch.float32, device="cpu")
        # Deviation: the margin lies outside of the outermost values, not inside: so both are reached as easily.
        half_range = (values - 1) * (1 + MARGIN) / 2
        offset = (1 - values % 2) / 2
        self._half_range, self._offset = half_range.tolist(), offset.tolist()
        self._shift = torch.atanh(offset / half_range).tolist()  # takes latent 0 to value 0

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, values_per_dim={self.values_per_dim}"

    def _bounded(self, slots: Tensor) -> Tensor:
        """Between the outermost values, which are whole numbers here."""
        shift, half_range, offset = map(slots.new_tensor, (self._shift, self._half_range, self._offset))
        return torch.tanh(slots + shift) * half_range - offset

    def _digits(self, slots: Tensor) -> Tensor:
        digits = (self._bounded(slots).round() + self._halves(slots)).long()
        return digits.clamp(min=0).minimum(digits.new_tensor(self.values_per_dim) - 1)  # whatever NaN became

    def _points(self, digits: Tensor) -> Tensor:
        halves = self._halves(digits)
        return (digits - halves) / halves

    def _pass_through(self, slots: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        no_loss = slots.new_zeros(())
        return pass_gradient(self._bounded(slots) / self._halves(slots), points), no_loss, no_loss

    def _halves(self, like: Tensor) -> Tensor:
        """What divides whole numbers to points in [-1, 1]."""
        return like.new_tensor([value // 2 for value in self.values_per_dim], dtype=torch.float32)


def balanced_factors(product: int, count: int, *, highest: int | None = None) -> tuple[int, ...]:
    """`product` as `count` factors in falling order, from 3 to `highest`, with the least sum: as near as can be.

    Raises:
        ValueError: If there are none.
    """
    cuts = list(_cuts(product, count, product if highest is None else highest))
    if not cuts:
        raise ValueError(
            f"codebook_size must be a product of {count} numbers of values, each at least {FEWEST_VALUES}; "
            f"got {product}; change codebook_size or dim, or take BinaryQuantizer for two values per dimension"
        )
    return min(cuts, key=sum)


def _cuts(product: int, count: int, highest: int) -> Iterator[tuple[int, ...]]:
    """All ways, each in falling order."""
    if count == 1:
        if FEWEST_VALUES <= product <= highest:
            yield (product,)
        return
    for first in range(min(product // FEWEST_VALUES ** (count - 1), highest), FEWEST_VALUES - 1, -1):
        if product % first == 0:
            yield from ((first, *rest) for rest in _cuts(product // first, count - 1, first))


def _checked(values_per_dim: Sequence[int], codebook_size: int, dims_per_slice: int) -> tuple[int, ...]:
    values = tuple(as_size("values_per_dim", value) for value in values_per_dim)
    if len(values) != dims_per_slice:
        raise ValueError(
            f"values_per_dim must have one entry for each of the {dims_per_slice} dimensions of a slice, "
            f"dim / num_codebooks; got {list(values)}"
        )
    if min(values) < FEWEST_VALUES:
        raise ValueError(
            f"values_per_dim must be at least {FEWEST_VALUES} each; got {list(values)}; "
            "for two values per dimension take BinaryQuantizer"
        )
    if math.prod(values) != codebook_size:
        raise ValueError(f"values_per_dim must multiply to codebook_size={codebook_size}; got {list(values)}")
    return values


def values_of(codebook_size: int) -> tuple[int, ...]:
    """Numbers of values that multiply to K, for when the number of dimensions is free: few, and 3 to 16 each.

    As few dimensions as 8 values each allow; fewer where that has no solution, and where that has none either, more:
    32 is 8 x 4, 128 is 8 x 4 x 4, 512 is 8 x 8 x 8, 1000 is 8 x 5 x 5 x 5, 11 is 11, 3125 is 5 x 5 x 5 x 5 x 5.

    Raises:
        ValueError: If K cannot be cut like that, or is above 2**24.
    """
    check_codebook_size(codebook_size)
    fewest = next(count for count in itertools.count(1) if USUAL_VALUES**count >= codebook_size)
    most = next(count for count in itertools.count() if FEWEST_VALUES ** (count + 1) > codebook_size)
    for count in (*range(fewest, 0, -1), *range(fewest + 1, most + 1)):
        with contextlib.suppress(ValueError):
            return balanced_factors(codebook_size, count, highest=MOST_VALUES)
    raise ValueError(
        f"codebook_size must be a product of factors from {FEWEST_VALUES} to {MOST_VALUES} for a scalar quantizer; "
        f"got {codebook_size}; powers of two from 4 on are"
    )
