"""One level of the hierarchy: the procedure DECODE of Algorithm 1."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from depthq.models.blocks import Downsample, residual_blocks
from depthq.models.config import DQAEConfig
from depthq.models.quantizer import QUANTIZERS


class Level(nn.Module):
    """Encodes finer features, quantizes them given the decoding of all coarser codes, and decodes for the next level.

    Shapes: `features` (B, F, H_l, W_l) with F the width of the finest level's last encoder block; level 0 is the
    coarsest, and its grid is 2^(num_levels - 1) times coarser than the finest.

    Args:
        config: The model's.
        level: Which one, 0 .. num_levels - 1.
    """

    quantizer: Any  # whatever keeps the contract of `depthq.quantizers.Quantizer`, or NoQuantizer

    def __init__(self, config: DQAEConfig, level: int):
        super().__init__()
        width, blocks = config.channels[-1], config.num_residual_blocks
        is_coarsest, is_finest = level == 0, level == config.num_levels - 1
        self.encoder = _finest_encoder(config) if is_finest else Downsample(width, width, blocks)
        self.quantizer = QUANTIZERS[config.quantizer](config, level)
        self.projection = nn.Conv2d(width if is_coarsest else 2 * width, self.quantizer.dim, 1)
        # The finest level's decoding would condition nothing.
        self.decoder = None if is_finest else _decoder(self.quantizer.out_dim, width, blocks)
        self.upsampler = nn.Sequential(
            nn.Conv2d(self.quantizer.out_dim, width, 1),
            nn.Upsample(scale_factor=2 ** (config.num_levels - 1 - level), mode="nearest"),
        )

    def latents(self, features: Tensor, decoding: Tensor | None) -> Tensor:
        """What is quantized: the features, given the decoding of all coarser codes on this grid (Q(e, d_prev))."""
        if decoding is not None:
            features = torch.cat([features, decoding], dim=1)
        # No rectifier here: with one, a fast start left a coarse level with 2 % of its units alive, and few codes.
        return self.projection(features)

    def next_decoding(self, quantized: Tensor, decoding: Tensor | None) -> Tensor | None:
        """d = D(q) + d_prev, brought to the next finer grid; None behind the finest level."""
        if self.decoder is None:
            return None
        decoded = self.decoder(quantized)
        if decoding is not None:
            decoded = decoded + decoding
        return nn.functional.interpolate(decoded, scale_factor=2, mode="nearest")


def _finest_encoder(config: DQAEConfig) -> nn.Sequential:
    widths = [config.image_channels, *config.channels]
    return nn.Sequential(*(Downsample(i, o, config.num_residual_blocks) for i, o in pairwise(widths)))


def _decoder(in_channels: int, channels: int, num_residual_blocks: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), residual_blocks(channels, num_residual_blocks))
