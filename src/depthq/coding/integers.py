"""From what networks say to whole numbers that a coder takes: the same on every machine.

Floating point sums differ in their last bits between machines, batch sizes and numbers of threads. Everything that a
decoder must compute again is therefore computed in float64, whose noise is about 1e-13, and put on a coarse grid. The
encoder sees to it that no value lies so near a boundary of the grid that noise could carry it across: if one does, it
moves the grid, for a block of values at a time, by an offset that is told in the stream. From the grid on there are
whole numbers only.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from depthq.coding.tables import (
    CUMULATIVE_BITS,
    INVERSE_BITS,
    LARGEST_LOG_SCALE,
    STEPS_PER_UNIT,
    WEIGHT_BITS,
    exponential,
    inverse_scales,
    logistic_at,
)
from depthq.likelihoods import CategoricalLikelihood, Likelihood, LogisticMixtureLikelihood

NUM_OFFSETS = 256
"""Places that a grid can be moved to, a 256th of a step apart."""
_NOISE = 3e-11
"""How far a network's output on another machine may lie from ours, for outputs of size 1 and larger ones in
proportion: a hundred times what was ever seen."""

_STEPS_PER_GREY = 16
_STEPS_PER_PLACE = 127.5 * _STEPS_PER_GREY
"""The gray scale is 2 long on the scale of a mixture's means."""
_STEPS_PER_COUPLING = 1 << 10
TOTAL_BITS = 20
"""Frequencies of the 256 values of a sub-pixel add up to 2^20."""
_CODE_TOTAL_BITS = 23
LARGEST_CODEBOOK = 1 << 20
"""Codes: sums of so many weights, of 20 bits each, times 2^23 stay below 2^63."""
_NUM_VALUES = 256
NIBBLE = 16


class NearBoundaryError(ValueError):
    """An output lies so near a boundary of the grid that another machine may see it on the other side."""


class Grid:
    """Puts float64 outputs on a grid.

    Args:
        offset: 0..255, how far the grid is moved.
        careful: Raise NearBoundaryError for what lies near a boundary: encoders do, decoders need not.
    """

    def __init__(self, offset: int, *, careful: bool):
        self.shift = 0.5 + offset / NUM_OFFSETS
        self.careful = careful

    def __call__(self, outputs: Tensor, steps_per_unit: float) -> Tensor:
        """int64, of float64 outputs of any shape: how many steps of the grid."""
        steps = outputs * steps_per_unit + self.shift
        whole = steps.floor()
        if self.careful:
            noise = outputs.abs().clamp_(min=1).mul_(_NOISE * steps_per_unit)
            to_boundary = (steps - whole - 0.5).abs_().neg_().add_(0.5)
            if (to_boundary < noise).any():
                raise NearBoundaryError
        return whole.long()


class SubPixels(ABC):
    """The distributions of the sub-pixels of N pixels, channel by channel, in whole numbers."""

    @abstractmethod
    def cumulative(self, channel: int, edges: Tensor) -> Tensor:
        """How much of 2^20 lies below values `edges`, int64 (N, E) in 0..256: int64 (N, E), strictly increasing."""

    @abstractmethod
    def learn(self, channel: int, values: Tensor) -> None:
        """Let the later channels know the values of this one, int64 (N,)."""

    def high(self, channel: int) -> Tensor:
        """Frequencies int64 (N, 16) of the upper four bits of each value."""
        return self._between(channel, torch.zeros(1, 1, dtype=torch.int64), NIBBLE)

    def low(self, channel: int, high: Tensor) -> Tensor:
        """Frequencies int64 (N, 16) of the lower four bits, given the upper ones int64 (N,)."""
        return self._between(channel, high[:, None] * NIBBLE, 1)

    def _between(self, channel: int, first: Tensor, step: int) -> Tensor:
        return self.cumulative(channel, first + step * torch.arange(NIBBLE + 1)).diff(dim=1)


class MixtureSubPixels(SubPixels):
    """Of a mixture of discretized logistics.

    Args:
        likelihood: Says what the parameters are.
        parameters: float64 (N, P).
        grid: What puts them on whole numbers.
    """

    def __init__(self, likelihood: LogisticMixtureLikelihood, parameters: Tensor, grid: Grid):
        logits, means, log_scales, couplings = likelihood.split(parameters[..., None, None])
        self.weights = _weights(grid(logits.flatten(1), STEPS_PER_UNIT))  # (N, K)
        self.means = [grid(mean.flatten(1), _STEPS_PER_PLACE) for mean in means]
        steps = (grid(log_scale.flatten(1), STEPS_PER_UNIT) for log_scale in log_scales)
        inverse = inverse_scales(int(_STEPS_PER_PLACE))
        self.inverse_scales = [
            inverse[step.clamp_(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE) + LARGEST_LOG_SCALE] for step in steps
        ]
        self.couplings = [grid(coupling.flatten(1).tanh(), _STEPS_PER_COUPLING) for coupling in couplings]

    def cumulative(self, channel: int, edges: Tensor) -> Tensor:
        below = (self._below(channel, edges) * self.weights[:, None]).sum(2)  # < 2^48
        share = below >> (CUMULATIVE_BITS - 10)
        whole = self.weights.sum(1, keepdim=True) << 10
        return share * ((1 << TOTAL_BITS) - _NUM_VALUES) // whole + edges

    def learn(self, channel: int, values: Tensor) -> None:
        if channel + 1 == len(self.means):
            return
        mass = self._below(channel, values[:, None] + torch.arange(2)).diff(dim=1).squeeze(1)  # (N, K)
        self.weights = _renormalized(self.weights * mass, self.weights)
        places = (2 * values - _NUM_VALUES + 1) * (_STEPS_PER_GREY // 2)  # of the gray scale's middle
        # R to G, R to B, G to B: couplings 0; 1 and 2.
        for later in range(channel + 1, len(self.means)):
            coupling = self.couplings[later - 1 + (later == 2) * channel]
            self.means[later] = self.means[later] + (coupling * places[:, None] >> 10)

    def _below(self, channel: int, edges: Tensor) -> Tensor:
        """How much of 2^24 of each component lies below values `edges` (N, E): (N, E, K); the ends take the tails."""
        places = (edges - _NUM_VALUES // 2) * _STEPS_PER_GREY
        distance = places[:, :, None] - self.means[channel][:, None]
        below = logistic_at(distance * self.inverse_scales[channel][:, None] >> INVERSE_BITS)
        below.masked_fill_((edges == 0)[:, :, None], 0)
        return below.masked_fill_((edges == _NUM_VALUES)[:, :, None], 1 << CUMULATIVE_BITS)


class CategoricalSubPixels(SubPixels):
    """Of free probabilities for each of the 256 values.

    Args:
        likelihood: Says what the parameters are.
        parameters: float64 (N, P).
        grid: What puts them on whole numbers.
    """

    def __init__(self, likelihood: CategoricalLikelihood, parameters: Tensor, grid: Grid):
        logits = parameters.unflatten(1, (likelihood.image_channels, _NUM_VALUES))
        weights = _weights(grid(logits, STEPS_PER_UNIT))
        self.sums = torch.nn.functional.pad(weights.cumsum(2), (1, 0))  # (N, C, 257)

    def cumulative(self, channel: int, edges: Tensor) -> Tensor:
        sums = self.sums[:, channel]
        edges = edges.expand(len(sums), -1)
        return sums.gather(1, edges) * ((1 << TOTAL_BITS) - _NUM_VALUES) // sums[:, -1:] + edges

    def learn(self, channel: int, values: Tensor) -> None:
        """Channels are independent."""


def sub_pixels(likelihood: Likelihood, parameters: Tensor, grid: Grid) -> SubPixels:
    """The distributions of N pixels by parameters float64 (N, P).

    Raises:
        ValueError: If the likelihood is a density: values have no probabilities then.
    """
    if isinstance(likelihood, LogisticMixtureLikelihood):
        return MixtureSubPixels(likelihood, parameters, grid)
    if isinstance(likelihood, CategoricalLikelihood):
        return CategoricalSubPixels(likelihood, parameters, grid)
    raise ValueError(
        f"likelihood must give 8-bit values probabilities for a lossless file; got {likelihood}; "
        "train a model with likelihood logistic_mixture or categorical"
    )


def code_frequencies(logits: Tensor, grid: Grid) -> Tensor:
    """Frequencies int64 (B, K) of codes, each at least 1, together 2^23, from logits float64 (B, K)."""
    size = logits.shape[1]
    sums = torch.nn.functional.pad(_weights(grid(logits, STEPS_PER_UNIT)).cumsum(1), (1, 0))
    return (sums * ((1 << _CODE_TOTAL_BITS) - size) // sums[:, -1:] + torch.arange(size + 1)).diff(dim=1)


def _weights(steps: Tensor) -> Tensor:
    """exp of logits in steps of 1/32, in units of 2^-20 of the largest of the last axis."""
    table = exponential()
    return table[(steps.amax(-1, keepdim=True) - steps).clamp_(max=len(table) - 1)]


def _renormalized(weights: Tensor, otherwise: Tensor) -> Tensor:
    """Weights int64 (N, K) shifted so that the largest has 20 bits; where all are 0, `otherwise`."""
    largest = weights.amax(1, keepdim=True)
    bits = torch.frexp(largest.double()).exponent.long()  # exact below 2^53
    shift = bits - WEIGHT_BITS
    shifted = torch.where(shift > 0, weights >> shift.clamp(min=0), weights << (-shift).clamp(min=0))
    return torch.where(largest > 0, shifted, otherwise)
