"""Binary quantization without codebooks: lookup-free (Yu et al. 2023) and on the sphere (Zhao et al. 2024)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from depthq.quantizers.base import as_size
from depthq.quantizers.code_entropy import check_entropy_options
from depthq.quantizers.grid import GridQuantizer, GridState, check_codebook_size
from depthq.quantizers.straight_through import straight_through

SMALLEST_NORM = 1e-6
"""Shorter slices are not brought to length 1, or their gradient would have no bound."""
TINY = 1e-10


class BinaryState(GridState):
    """`GridState` of bits, and whether codewords lie on the sphere.

    Args:
        num_codebooks: M.
        num_bits: log2 K.
        on_sphere: Whether codewords have length 1.
    """

    MUST_MATCH: ClassVar = {**GridState.MUST_MATCH, "on_sphere": "on_sphere"}
    UNSAID: ClassVar = {"on_sphere": True}

    def __init__(self, num_codebooks: int, num_bits: int, on_sphere: bool):
        super().__init__(num_codebooks, (2,) * num_bits)
        self.on_sphere = on_sphere


class BinaryQuantizer(GridQuantizer):
    """Takes of each dimension of M slices its sign alone: log2 K dimensions make a code of log2 K bits.

    `on_sphere` (BSQ), each slice is first brought to length 1, and codewords have length 1 as well, with entries
    +-1 / sqrt(log2 K). Otherwise (LFQ) nothing is done to the latents, and entries are +-1.

    Nothing is learned, so it takes a loss to keep codes in use: `entropy_loss` is small where each bit of a vector is
    certain and each bit is even over the batch. Bit i of a vector is 1 with probability sigmoid(4 t u_i c), where u is
    the slice, c the entry and t the inverse temperature: a softmax of -t |u - codeword|^2 over all codewords is the
    product of these. Summed over bits, the entropy per vector is hence exact. The entropy of the batch's mean, summed
    over bits, is an upper bound, exact where bits are independent. Each process takes its own batch.

    Args:
        dim: Size M log2 K of the split axis.
        num_codebooks: M, the number of slices.
        codebook_size: K, a power of two, from 2 to 2**24; on the sphere from 4, as a single number of length 1 is
            fixed but for its sign, and passes no gradient.
        on_sphere: BSQ if True, LFQ if False.
        entropy_weight: Of (mean entropy of a vector's code - entropy of the batch's mean), nats, summed over codebooks;
            finite and at least 0.
        inverse_temperature: t, positive.
        axis: The axis that is split; any but the batch's (0).
        commitment_weight: beta of Eq. 5, finite and at least 0.
        check_finite: Refuse NaN and infinity in training, at the price of one pass over the input (on a GPU also of one
            synchronisation).
        codebook_dropout: Share, in [0, 1), of a training step's entries of the batch that are quantized by their first
            codebooks alone.

    Raises:
        ValueError: If a number is out of range, or sizes do not fit together.

    Example:
        >>> quantizer = BinaryQuantizer(dim=35, num_codebooks=5, codebook_size=128)
        >>> quantizer(torch.randn(4, 35, 8, 8)).codes.shape
        torch.Size([4, 5, 8, 8])
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int,
        *,
        on_sphere: bool = True,
        entropy_weight: float = 0.01,
        inverse_temperature: float = 1.0,
        axis: int = 1,
        commitment_weight: float = 0.25,
        check_finite: bool = True,
        codebook_dropout: float = 0.0,
    ):
        dim, num_codebooks = as_size("dim", dim), as_size("num_codebooks", num_codebooks)
        num_bits = bits_of(as_size("codebook_size", codebook_size))
        if dim != num_codebooks * num_bits:
            raise ValueError(
                f"dim must be num_codebooks * log2(codebook_size) = {num_codebooks * num_bits}; got {dim}; "
                "project to that size first"
            )
        if on_sphere and num_bits == 1:
            raise ValueError(
                f"codebook_size must be at least 4 on the sphere, where one number has nothing to learn; got "
                f"{codebook_size}; pass on_sphere=False or a larger codebook_size"
            )
        entropy_weight, inverse_temperature = check_entropy_options(entropy_weight, inverse_temperature)
        state = BinaryState(num_codebooks, num_bits, bool(on_sphere))
        super().__init__(
            state,
            axis=axis,
            commitment_weight=commitment_weight,
            check_finite=check_finite,
            codebook_dropout=codebook_dropout,
        )
        self.on_sphere = state.on_sphere
        self.entropy_weight = entropy_weight
        self.inverse_temperature = inverse_temperature
        self._entry = num_bits**-0.5 if on_sphere else 1.0

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, on_sphere={self.on_sphere}"

    def _digits(self, slots: Tensor) -> Tensor:
        return (slots > 0).long()

    def _points(self, digits: Tensor) -> Tensor:
        return (2 * digits - 1).float() * self._entry

    def _pass_through(self, slots: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.on_sphere:
            slots = nn.functional.normalize(slots, dim=2, eps=SMALLEST_NORM)
        dims = (len(self.values_per_dim),) * self.num_codebooks
        quantized, commitment_loss, _ = straight_through(slots, points, dims)
        return quantized, commitment_loss, self.entropy_weight * self._entropy_loss(slots)

    def _entropy_loss(self, slots: Tensor) -> Tensor:
        """Mean entropy of a vector's bits, less that of the batch's mean bits; nats, summed over bits and codebooks."""
        log_odds = 4 * self.inverse_temperature * self._entry * slots  # (N, M, d)
        num_rows = max(len(slots), 1)
        per_vector = _entropy_of_log_odds(log_odds).sum() / num_rows
        mean = torch.sigmoid(log_odds).sum(0) / num_rows  # (M, d)
        return per_vector - _entropy_of_probability(mean).sum()


def bits_of(codebook_size: int) -> int:
    """log2 of K; raises ValueError unless it is a whole number, from 1 to 24."""
    check_codebook_size(codebook_size)
    if codebook_size < 2 or codebook_size & (codebook_size - 1):
        raise ValueError(f"codebook_size must be a power of two, at least 2, for binary codes; got {codebook_size}")
    return codebook_size.bit_length() - 1


def _entropy_of_log_odds(log_odds: Tensor) -> Tensor:
    """Of a bit, nats; exact however certain it is."""
    size = log_odds.abs()
    return nn.functional.softplus(-size) + size * torch.sigmoid(-size)


def _entropy_of_probability(p: Tensor) -> Tensor:
    """Of a bit, nats; 0 at 0 and 1, with a finite gradient there."""
    return -(p * (p + TINY).log() + (1 - p) * (1 - p + TINY).log())
