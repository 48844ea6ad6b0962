"""L2 in the normalised space, read as a density."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from depthq.likelihoods.base import Likelihood, to_uint8
from depthq.pixels import denormalize, normalize


class L2Likelihood(Likelihood):
    """Normal of variance 1/2 around the decoder's output, per sub-pixel in the normalised space (App. A.4).

    -log p(x) = (x - mean)^2 + log(pi) / 2: up to a constant the paper's squared error, with exactly its
    gradient. A density, not a probability: its nats compare with those of no discrete likelihood.

    Parameters, P = C: the mean of each channel in the normalised space.
    """

    is_discrete: ClassVar[bool] = False

    def __init__(self, image_channels: int):
        super().__init__(image_channels)
        self.num_parameters = image_channels

    def _log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        return -(normalize(images) - parameters.float()).square() - 0.5 * math.log(math.pi)

    def _mean(self, parameters: Tensor) -> Tensor:
        return denormalize(parameters)

    def _sample(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.empty_like(parameters).normal_(std=math.sqrt(0.5), generator=generator)
        return to_uint8(denormalize(parameters + noise))
