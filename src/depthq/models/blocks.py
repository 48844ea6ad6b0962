"""The convolutional blocks of a DQ-AE. All are fully convolutional and keep the batch's memory format."""

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv1x1(act(conv3x3(act(x)))). The last convolution starts at zero, so a new block is the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.pointwise.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.spatial(nn.functional.relu(x))
        return x + self.pointwise(nn.functional.relu(hidden))


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class Downsample(nn.Sequential):
    """Half the resolution by a strided convolution, then residual blocks: the paper's encoder block."""

    def __init__(self, in_channels: int, out_channels: int, num_residual_blocks: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1),
            residual_blocks(out_channels, num_residual_blocks),
        )


class Upsample(nn.Sequential):
    """Twice the resolution by a sub-pixel convolution, then residual blocks.

    The four sub-pixels of a place start with the same weights (ICNR; Aitken et al. 2017): as nearest upsampling, which
    has no lattice. Drawn apart, they leave one of 2 and 4 pixels in flat areas that training does not take out.
    """

    def __init__(self, in_channels: int, out_channels: int, num_residual_blocks: int):
        sub_pixels = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)
        with torch.no_grad():
            for tensor in sub_pixels.parameters():
                of_place = tensor.unflatten(0, (out_channels, 4))
                of_place.copy_(of_place[:, :1].clone())
        super().__init__(nn.ReLU(), sub_pixels, nn.PixelShuffle(2), residual_blocks(out_channels, num_residual_blocks))
