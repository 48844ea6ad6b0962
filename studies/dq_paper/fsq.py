"""Finite scalar quantization (Mentzer et al. 2023) of vector-quantize-pytorch, as a quantizer of the DQ-AE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from depthq.models import QUANTIZERS
from depthq.quantizers import QuantizedRows, Quantizer
from depthq.quantizers.processes import GlobalRows

if TYPE_CHECKING:
    from vector_quantize_pytorch import FSQ

    from depthq.quantizers import CodebookOptions

LEVELS = {32: (8, 4), 128: (8, 4, 4), 512: (8, 8, 8)}
"""K as a product of the values that each dimension can take."""


class Adapter(Quantizer):
    """Gives FSQ of vector-quantize-pytorch the contract.

    Args:
        peer: With keep_num_codebooks_dim.
        dim: Of the vectors that it takes and gives.
    """

    def __init__(self, peer: FSQ, dim: int):
        super().__init__(dim, dim, (int(peer.codebook_size),) * peer.num_codebooks)
        self.peer = peer

    def _quantize(self, rows: Tensor, global_rows: GlobalRows | None) -> QuantizedRows:
        quantized, codes = self.peer(rows[None])
        no_loss = rows.new_zeros(())
        return QuantizedRows(quantized[0], codes[0].long(), no_loss, no_loss, no_loss)

    def _search(self, rows: Tensor) -> Tensor:
        return self.peer(rows[None])[1][0].long()

    def _lookup(self, codes: Tensor) -> Tensor:
        return self.peer.indices_to_codes(codes[None])[0]


def fsq(num_codebooks: int, codebook_size: int, codebook_dim: int, options: CodebookOptions) -> Adapter:
    """M groups of dimensions, each with K values altogether; `codebook_dim` has no say in how many there are."""
    if codebook_size not in LEVELS:
        raise ValueError(f"codebook_size must be one of {', '.join(map(str, LEVELS))} for fsq; got {codebook_size}")
    try:
        from vector_quantize_pytorch import FSQ
    except ModuleNotFoundError as error:
        raise ValueError(
            "quantizer 'fsq' must have vector-quantize-pytorch to run; it is not installed; "
            "pip install 'depthq[studies]'"
        ) from error
    levels = LEVELS[codebook_size]
    dim = num_codebooks * len(levels)
    return Adapter(FSQ(list(levels), dim=dim, num_codebooks=num_codebooks, keep_num_codebooks_dim=True), dim)


QUANTIZERS["fsq"] = fsq
