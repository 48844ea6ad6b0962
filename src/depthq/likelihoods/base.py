"""The contract of all likelihoods, and the checks that they share."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from depthq.pixels import check_image_channels


class Likelihood(ABC):
    """p(image | decoder output), independent per pixel (App. A.4).

    Shapes: B images of C channels and H x W pixels; P parameters per pixel, on the channel axis of the
    decoder's output. A likelihood has no weights of its own.

    Args:
        image_channels: C, 1 (gray) or 3 (RGB).

    Raises:
        ValueError: If `image_channels` is neither 1 nor 3.
    """

    is_discrete: ClassVar[bool]
    """Whether `log_prob` is that of an 8-bit value, so that its bits are honest; if not, it is a density."""
    needs_float32: ClassVar[bool] = True
    """Whether parameters are places on the gray scale, neighbours on which bfloat16 cannot tell apart."""
    head_learning_rate: ClassVar[float] = 1.0
    """How many times the network's learning rate a decoder's last layer does well with."""
    adam_beta2: ClassVar[float] = 0.999
    """How much of the squared gradients of earlier steps Adam should remember."""
    num_parameters: int
    """P: how many channels the decoder must give."""

    def __init__(self, image_channels: int):
        check_image_channels(image_channels)
        self.image_channels = image_channels

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}(image_channels={self.image_channels}, num_parameters={self.num_parameters})"

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Log-likelihood of each sub-pixel; its sum over channels is that of the pixel.

        Args:
            parameters: float (B, P, H, W) of any precision; channels_last is the fastest.
            images: uint8 (B, C, H, W).

        Returns:
            float32 (B, C, H, W), in nats. Computed in float32 also under autocast.

        Raises:
            ValueError: If a shape or dtype is not as above.
        """
        self._check_parameters(parameters)
        self._check_images(images, parameters)
        with torch.autocast(parameters.device.type, enabled=False):
            return self._log_prob(parameters, images)

    def mean(self, parameters: Tensor) -> Tensor:
        """Expected image: float32 (B, C, H, W) in grey values, within [0, 255]; `parameters` as above."""
        self._check_parameters(parameters)
        with torch.autocast(parameters.device.type, enabled=False):
            return self._mean(parameters.float()).clamp(0, 255)

    def start(self, head: nn.Conv2d) -> None:  # noqa: B027 - not abstract: some have nothing to do
        """Set a decoder's last layer, in place, to what training does well to start from; here it stays as drawn.

        Args:
            head: A convolution of 1 x 1 with P output channels and a bias.
        """

    @torch.no_grad()
    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw an image: uint8 (B, C, H, W).

        Args:
            parameters: As for `log_prob`.
            generator: Source of randomness, on the device of `parameters`; by default the global one.
        """
        self._check_parameters(parameters)
        with torch.autocast(parameters.device.type, enabled=False):
            return self._sample(parameters.float(), generator)

    @abstractmethod
    def _log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """`log_prob` of checked arguments; `parameters` still have the decoder's precision."""

    @abstractmethod
    def _mean(self, parameters: Tensor) -> Tensor:
        """`mean` of checked float32 parameters, before the clamp to [0, 255]."""

    @abstractmethod
    def _sample(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        """`sample` of checked float32 parameters."""

    def _check_parameters(self, parameters: Tensor) -> None:
        if parameters.dim() != 4 or parameters.shape[1] != self.num_parameters:
            raise ValueError(
                f"parameters must be (B, P, H, W) with P = {self.num_parameters}; "
                f"got shape {tuple(parameters.shape)}; "
                "give the decoder as many output channels as the likelihood's num_parameters"
            )
        if not parameters.is_floating_point():
            raise ValueError(f"parameters must be floating point; got {parameters.dtype}")

    def _check_images(self, images: Tensor, parameters: Tensor) -> None:
        if images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, 0..255; got {images.dtype}; pass them unnormalised")
        batch, _, height, width = parameters.shape
        expected = (batch, self.image_channels, height, width)
        if images.shape != expected:
            raise ValueError(f"images must be {expected} as parameters are; got shape {tuple(images.shape)}")


def to_uint8(values: Tensor) -> Tensor:
    """The nearest 8-bit values of float grey values; what lies outside 0..255 becomes 0 or 255."""
    return values.round().clamp(0, 255).to(torch.uint8)


def sample_index(logits: Tensor, dim: int, generator: torch.Generator | None) -> Tensor:
    """One int64 index along `dim` (kept, of size 1) from softmax(logits): the argmax after Gumbel noise."""
    exponential = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - exponential.log()).argmax(dim, keepdim=True)
