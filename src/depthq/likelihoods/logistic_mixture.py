"""A mixture of discretized logistics with linear coupling of the channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthq.likelihoods.base import Likelihood, to_uint8
from depthq.likelihoods.chunked_mixture import ChunkedLogProb

_HALF_BIN = 1 / 255
"""Half the width of a grey value where 0..255 is mapped to [-1, 1]."""
_MAX_LOG_SCALE = 7.0
"""Log scales are held within +-7: from a tenth of a grey value to 500 times the range."""
# Deviation: PixelCNN++ has the lower bound alone; without the upper one the mass of a bin underflows.
_FIRST_LOG_SCALE = -2.0
"""Where log scales start, a spread of 17 grey values: from 0, half the range, training needs as many steps again."""
_FIRST_MEANS = (-0.1, 0.1)
"""Over which the components' means start: so little that every pixel pulls at all of them."""
_MAX_DISTANCE = 1e30
"""Bound on a distance in scales, so that decoders gone astray give large losses rather than infinite ones."""


class LogisticMixtureLikelihood(Likelihood):
    """Mixture of logistics, integrated over the width of each 8-bit value; "mix" in the paper (App. A.4).

    As in PixelCNN++ (Salimans et al. 2017, Sec. 2.1-2.2), a pixel picks one of K components for all of its
    channels. In a component, with values mapped to [-1, 1], R has mean m_R, G has m_G + c_0 R, and B has
    m_B + c_1 R + c_2 G. The values 0 and 255 also take the tails, so the 256 probabilities sum to one.

    Parameters, P = K (1 + 2C + C (C - 1) / 2): 100 for RGB and 30 for gray with K = 10. K each, in this
    order: mixture logits; means, per channel; log scales, per channel; couplings c_0, c_1, c_2 before tanh.

    Args:
        image_channels: C, 1 (gray) or 3 (RGB).
        num_components: K, at least 1.

    Raises:
        ValueError: If an argument is out of range.
    """

    is_discrete: ClassVar[bool] = True
    # Gradients grow tenfold within a few hundred steps, as components narrow: a long memory would stand still in them.
    adam_beta2: ClassVar[float] = 0.98
    head_learning_rate: ClassVar[float] = 5.0

    def __init__(self, image_channels: int, num_components: int = 10):
        super().__init__(image_channels)
        if num_components < 1:
            raise ValueError(f"num_components must be at least 1; got {num_components}")
        self.num_components = num_components
        num_couplings = image_channels * (image_channels - 1) // 2
        self.num_parameters = num_components * (1 + 2 * image_channels + num_couplings)

    @torch.no_grad()
    def start(self, head: nn.Conv2d) -> None:
        """Narrow components whose means move together: as one regression at first, whose gradients all add up.

        With weights of their own they part at once, each pixel teaches the nearest alone, and luminance, which is most
        of an image, is learned late.
        """
        assert head.bias is not None
        _, mean_weights, _, _ = self.split(head.weight[None])
        _, means, log_scales, _ = self.split(head.bias[None])
        for weights, mean, log_scale in zip(mean_weights, means, log_scales, strict=True):
            weights.copy_(weights[:, :1].clone())
            mean.copy_(torch.linspace(*_FIRST_MEANS, self.num_components))
            log_scale.fill_(_FIRST_LOG_SCALE)

    def _log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        if parameters.device.type != "cpu" or torch.compiler.is_compiling() or not parameters.numel():
            return self.reference_log_prob(parameters, images)
        rows = parameters.permute(0, 2, 3, 1)
        values = images.permute(0, 2, 3, 1)
        log_probs = ChunkedLogProb.apply(
            rows.reshape(-1, self.num_parameters),
            values.reshape(-1, self.image_channels),
            self.num_components,
            _MAX_LOG_SCALE,
        )
        return log_probs.float().view(values.shape).permute(0, 3, 1, 2)

    def reference_log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """`log_prob` of checked arguments, written out: for GPUs and compilers, which fuse it themselves."""
        mixture = self._mixture(parameters)
        grey = images.contiguous().split(1, dim=1)  # C times (B, 1, H, W)
        places = [from_grey(values) for values in grey]
        log_weights = mixture.log_weights
        log_probs = []
        for channel, values in enumerate(grey):
            mean = mixture.mean(channel, places[:channel])
            joint = log_weights + _log_bin_probability(values, mean, mixture.log_scales[channel])
            log_probs.append(joint.logsumexp(1, keepdim=True))
            log_weights = joint - log_probs[-1]  # of the components, given the channels so far
        return torch.cat(log_probs, dim=1)

    def _mean(self, parameters: Tensor) -> Tensor:
        # Each channel is conditioned on its component's mean of the earlier ones. All that this ignores is
        # how their spread moves probability past the ends of the range.
        mixture = self._mixture(parameters)
        means: list[Tensor] = []  # C times (B, K, H, W)
        for channel, log_scale in enumerate(mixture.log_scales):
            means.append(_clipped_mean(mixture.mean(channel, means), log_scale.exp()))
        weights = mixture.log_weights.exp()
        return _to_grey(torch.stack([(weights * mean).sum(1) for mean in means], dim=1))

    def _sample(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        batch, _, height, width = parameters.shape
        shape = (batch, self.num_uniforms, height, width)
        return self.draw(
            parameters, torch.rand(shape, generator=generator, dtype=torch.float32, device=parameters.device)
        )

    @property
    def num_uniforms(self) -> int:
        """How many random numbers `draw` takes per pixel: K for the component, C for the channels."""
        return self.num_components + self.image_channels

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """`sample` from random numbers that are given: float (B, `num_uniforms`, H, W), uniform over [0, 1)."""
        mixture = self._mixture(parameters)
        for_component, for_channels = uniforms.split((self.num_components, self.image_channels), dim=1)
        gumbel = -(-for_component.log()).log()
        component = mixture.component((mixture.log_weights + gumbel).argmax(1, keepdim=True))
        grey, places = [], []
        for channel, log_scale in enumerate(component.log_scales):
            logistic = for_channels[:, channel : channel + 1].logit(eps=1e-7)
            place = component.mean(channel, places) + log_scale.exp() * logistic
            grey.append(to_uint8(_to_grey(place)))
            places.append(from_grey(grey[-1]))  # later channels see the 8-bit value
        return torch.cat(grey, dim=1)

    def shift(self, parameters: Tensor, by: Tensor) -> Tensor:
        """Parameters (B, P, H, W) of the same mixture with all values moved `by` (B, C, H, W), on the scale [-1, 1]."""
        logits, means, log_scales, couplings = self.split(parameters)
        places = by.unsqueeze(1).unbind(2)
        moved = []
        for channel, (mean, place) in enumerate(zip(means, places, strict=True)):
            through_earlier = zip(_couplings_of(channel, couplings), places, strict=False)
            moved.append(mean + place - sum(coupling.tanh() * earlier for coupling, earlier in through_earlier))
        return torch.cat([logits, *moved, *log_scales, *couplings], dim=1)

    def split(self, parameters: Tensor) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """Logits; means and log scales per channel; couplings: views (B, K, ...) of parameters (B, P, ...)."""
        channels = self.image_channels
        logits, *others = parameters.unflatten(1, (-1, self.num_components)).unbind(1)
        return logits, others[:channels], others[channels : 2 * channels], others[2 * channels :]

    def _mixture(self, parameters: Tensor) -> "_Mixture":
        # Contiguous float32: the sums over components then run over whole rows of pixels.
        logits, means, log_scales, couplings = self.split(parameters.float().contiguous())
        return _Mixture(
            log_weights=logits.log_softmax(1),
            means=means,
            log_scales=[log_scale.clamp(-_MAX_LOG_SCALE, _MAX_LOG_SCALE) for log_scale in log_scales],
            couplings=[coupling.tanh() for coupling in couplings],
        )


@dataclass(frozen=True)
class _Mixture:
    """What the decoder's output says, each map (B, K, H, W)."""

    log_weights: Tensor
    means: Sequence[Tensor]
    log_scales: Sequence[Tensor]
    couplings: Sequence[Tensor]
    """c_0 (R to G), c_1 (R to B), c_2 (G to B), within (-1, 1)."""

    def mean(self, channel: int, earlier: Sequence[Tensor]) -> Tensor:
        """Mean of a channel in each component, given the values of all `earlier` channels, in [-1, 1]."""
        mean = self.means[channel]
        for coupling, value in zip(_couplings_of(channel, self.couplings), earlier, strict=True):
            mean = mean + coupling * value
        return mean

    def component(self, index: Tensor) -> "_Mixture":
        """The component `index`, int64 (B, 1, H, W), of each pixel, as a mixture of one."""
        return _Mixture(
            log_weights=torch.zeros_like(index, dtype=torch.float32),
            means=[mean.gather(1, index) for mean in self.means],
            log_scales=[log_scale.gather(1, index) for log_scale in self.log_scales],
            couplings=[coupling.gather(1, index) for coupling in self.couplings],
        )


def _couplings_of(channel: int, couplings: Sequence[Tensor]) -> Sequence[Tensor]:
    """Of a channel to each earlier one: none for R, c_0 for G, c_1 and c_2 for B."""
    first = channel * (channel - 1) // 2
    return couplings[first : first + channel]


def _log_bin_probability(values: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of an 8-bit value under each logistic.

    With a and b the upper and lower end of the value's bin, in scales from the mean, it is
    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): exact, and free of cancellation however
    far away the mean is. Value 0 has b = -inf and value 255 a = +inf, which leaves one factor.

    Args:
        values: uint8 (B, 1, H, W).
        mean: float32 (B, K, H, W), on the scale [-1, 1].
        log_scale: float32 (B, K, H, W), within +-7.

    Returns:
        float32 (B, K, H, W), in nats.
    """
    inverse_scale = torch.exp(-log_scale)
    center = ((from_grey(values) - mean) * inverse_scale).clamp(-_MAX_DISTANCE, _MAX_DISTANCE)
    half_bin = _HALF_BIN * inverse_scale
    lowest, highest = values == 0, values == 255
    return (
        F.logsigmoid(center + half_bin).masked_fill(highest, 0)
        + F.logsigmoid(half_bin - center).masked_fill(lowest, 0)
        + torch.log(-torch.expm1(-2 * half_bin)).masked_fill(lowest | highest, 0)
    )


def _clipped_mean(mean: Tensor, scale: Tensor) -> Tensor:
    """E[min(max(X, -1), 1)] of a logistic X: -1 plus the integral of P(X > t) over t in [-1, 1].

    Written with |.| so that it holds, and nothing overflows, however far away the mean is.
    """
    below, above = (F.softplus(-(mean - end).abs() / scale) for end in (-1, 1))
    return mean.clamp(-1, 1) + scale * (below - above)


def from_grey(values: Tensor) -> Tensor:
    """0..255 to [-1, 1], float32."""
    return values.float() / 127.5 - 1


def _to_grey(places: Tensor) -> Tensor:
    """[-1, 1] to 0..255."""
    return (places + 1) * 127.5
