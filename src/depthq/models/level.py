"""One level of the hierarchy: the procedure DECODE of Algorithm 1."""

import torch
from torch import Tensor, nn

from depthq.models.blocks import residual_blocks
from depthq.quantizers import Quantizer


class Level(nn.Module):
    """Encodes finer features, quantizes them given the decoding of all coarser codes, and decodes for the next level.

    Shapes: `features` (B, F, H_l, W_l) with F = `width`; level 0 is the coarsest, and the grid of a level is
    2^num_finer times coarser than the finest.

    Args:
        encoder: What the finer level's features (the image, for the finest) go through; its output has F channels.
        quantizer: Of this level; splits axis 1.
        width: F, the channels of features and decodings.
        num_residual_blocks: Residual blocks behind each change of resolution.
        num_coarser: How many levels are coarser than this one.
        num_finer: How many levels are finer than this one.
    """

    def __init__(
        self,
        encoder: nn.Module,
        quantizer: Quantizer,
        *,
        width: int,
        num_residual_blocks: int,
        num_coarser: int,
        num_finer: int,
    ):
        super().__init__()
        self.encoder = encoder
        self.quantizer = quantizer
        self.projection = nn.Conv2d(2 * width if num_coarser else width, quantizer.dim, 1)
        # The finest level's decoding would condition nothing.
        self.decoder = _decoder(quantizer.out_dim, width, num_residual_blocks) if num_finer else None
        self.upsampler = nn.Sequential(
            nn.Conv2d(quantizer.out_dim, width, 1), nn.Upsample(scale_factor=2**num_finer, mode="nearest")
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


def _decoder(in_channels: int, channels: int, num_residual_blocks: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), residual_blocks(channels, num_residual_blocks))
