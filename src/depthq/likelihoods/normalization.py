"""The normalised space of the paper: ImageNet mean and standard deviation per colour channel.

Images enter the encoder in this space, and the paper's L2 is a mean squared error in it. One unit is about 58
grey levels, so squared errors are about 19.6 times those of images in [0, 1].
"""

import torch
from torch import Tensor

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """Images as the encoder sees them.

    Args:
        images: uint8 (B, C, H, W), C = 3 (RGB) or 1 (gray: the averages of the three means and deviations).

    Returns:
        float32 (B, C, H, W), in the memory format of `images`.

    Raises:
        ValueError: If `images` is not uint8, or C is neither 1 nor 3.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, 0..255; got {images.dtype}")
    mean, std = _statistics(images)
    return (images.float() - mean) / std


def denormalize(normalized: Tensor) -> Tensor:
    """The inverse of `normalize`: float32 grey levels on the scale 0..255, neither rounded nor clamped.

    Args:
        normalized: float (B, C, H, W), C = 3 or 1.

    Raises:
        ValueError: If C is neither 1 nor 3.
    """
    mean, std = _statistics(normalized)
    return normalized.float() * std + mean


def check_image_channels(channels: int) -> None:
    """Raise ValueError unless images of that many channels are gray or RGB."""
    if channels not in (1, 3):
        raise ValueError(f"image_channels must be 1 (gray) or 3 (RGB); got {channels}; convert the images")


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in grey levels, each float32 (1, C, 1, 1) on the device of `images`."""
    channels = images.shape[1]
    check_image_channels(channels)
    levels = 255 * torch.tensor([_IMAGENET_MEAN, _IMAGENET_STD])  # (2, 3)
    if channels == 1:
        levels = levels.mean(1, keepdim=True)
    # Built here, not cached: a cached tensor could have been born in inference mode. Not blocking: the host
    # need not wait until the device's queue has run dry.
    mean, std = levels[:, None, :, None, None].to(images.device, non_blocking=True)
    return mean, std
