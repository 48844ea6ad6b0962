"""Finite scalar quantization (Mentzer et al. 2023) of vector-quantize-pytorch, as a quantizer of the DQ-AE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from depthq.models import QUANTIZERS
from depthq.quantizers import QuantizerOutput

if TYPE_CHECKING:
    from vector_quantize_pytorch import FSQ, LFQ

    from depthq.models import DQAEConfig

LEVELS = {32: (8, 4), 128: (8, 4, 4), 512: (8, 8, 8)}
"""K as a product of the values that each dimension can take."""


class Adapter(nn.Module):
    """Gives a lookup-free quantizer of M codebooks of equal size the contract of `depthq.quantizers.Quantizer`.

    Args:
        peer: FSQ or LFQ of vector-quantize-pytorch, with keep_num_codebooks_dim.
        dim: Of the vectors that it takes and gives.
    """

    def __init__(self, peer: FSQ | LFQ, dim: int):
        super().__init__()
        self.peer = peer
        self.dim = self.out_dim = dim
        self.codebook_sizes: tuple[int, ...] = (peer.codebook_size,) * peer.num_codebooks  # type: ignore[assignment]

    def forward(self, x: Tensor) -> QuantizerOutput:
        rows, positions = x.float().movedim(1, -1).flatten(1, -2), x.shape[2:]  # (B, N, C)
        quantized, codes, *losses = self.peer(rows)
        quantized = quantized.unflatten(1, positions).movedim(-1, 1).to(x.dtype)
        codes = codes.long().unflatten(1, positions).movedim(-1, 1)  # (B, M, *positions)
        loss = losses[0] if losses else x.new_zeros(())  # LFQ's own; FSQ has none
        no_loss = torch.zeros_like(loss)
        return QuantizerOutput(quantized, codes, loss, no_loss, loss, self.codebook_sizes)

    def encode(self, x: Tensor) -> Tensor:
        return self(x).codes

    def decode(self, codes: Tensor) -> Tensor:
        rows = codes.movedim(1, -1).flatten(1, -2)  # (B, N, M)
        return self.peer.indices_to_codes(rows).unflatten(1, codes.shape[2:]).movedim(-1, 1)


def fsq(config: DQAEConfig, level: int) -> Adapter:
    """M groups of dimensions, each with K values altogether; `codebook_dim` has no say in how many there are."""
    size = config.level_sizes[level]
    if size not in LEVELS:
        raise ValueError(f"codebook_size must be one of {', '.join(map(str, LEVELS))} for fsq; got {size}")
    try:
        from vector_quantize_pytorch import FSQ
    except ModuleNotFoundError as error:
        raise ValueError(
            "quantizer 'fsq' must have vector-quantize-pytorch to run; it is not installed; "
            "pip install 'depthq[studies]'"
        ) from error
    dim = config.num_codebooks * len(LEVELS[size])
    return Adapter(
        FSQ(list(LEVELS[size]), dim=dim, num_codebooks=config.num_codebooks, keep_num_codebooks_dim=True), dim
    )


QUANTIZERS["fsq"] = fsq
