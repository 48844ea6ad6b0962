"""Which quantizer a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from depthq.quantizers import DepthwiseQuantizer, ResidualQuantizer, SharedQuantizer

if TYPE_CHECKING:
    from depthq.models.config import DQAEConfig


class NoQuantizer(nn.Module):
    """Passes latents through: the auto-encoder without its bottleneck, the limit for any quantizer."""

    dim: int
    out_dim: int

    def __init__(self, config: DQAEConfig, level: int):
        super().__init__()
        self.dim = self.out_dim = config.num_codebooks * config.codebook_dim


def _quantizer(kind: type, config: DQAEConfig, level: int) -> nn.Module:
    """One of ours. Depthwise cuts M slices of D out of its input; the others give one vector of D to all codebooks."""
    slices = config.num_codebooks if kind is DepthwiseQuantizer else 1
    return kind(
        dim=slices * config.codebook_dim,
        num_codebooks=config.num_codebooks,
        codebook_size=config.level_sizes[level],
        commitment_weight=config.commitment_weight,
        codebook_update=config.codebook_update,
        decay=config.decay,
        rare_code_threshold=config.rare_code_threshold,
    )


QUANTIZERS: dict[str, Callable[[DQAEConfig, int], nn.Module]] = {
    "depthwise": partial(_quantizer, DepthwiseQuantizer),
    "shared": partial(_quantizer, SharedQuantizer),
    "residual": partial(_quantizer, ResidualQuantizer),
    "none": NoQuantizer,
}
"""What makes the quantizer of a level, by the name in `DQAEConfig.quantizer`. Add your own under a new name: a function
of (config, level) that returns any module with the contract of `depthq.quantizers.Quantizer`: `dim`, `out_dim`,
`codebook_sizes`, `forward` to a `QuantizerOutput`, `encode` and `decode`."""
