"""The log-likelihood of a mixture of discretized logistics for CPUs, where memory traffic is what costs."""

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_PIXELS = 8192
"""Pixels per chunk: few enough for the caches, enough for two threads to share the work on each map."""
_ROW = _CHUNK_PIXELS + 16
"""Memory for a row of a map: longer than a chunk, for PyTorch transposes on one thread what lies without gaps."""
_NUM_BUFFERS = 6
_MAX_DISTANCE = 1e30


class ChunkedLogProb(torch.autograd.Function):
    """`LogisticMixtureLikelihood._log_prob` of rows, differentiable once in the parameters.

    Written out, a batch of 64 images of 32x32 fills a hundred maps of 8 MB. Here a chunk of pixels goes through all of
    them in the cache, and notes on its way what the way back needs: how log p of each component changes with its mean
    and its log scale, and which component a pixel belongs to.

    With x the distance of a value from a component's mean and h half the width of its bin, both in scales, and with
    u = exp(-|x|) and q = exp(-h), the bin holds u (1 - q^2) / ((1 + u q) (u + q)): one logarithm, nothing cancels, and
    nothing overflows. The first bin and the last reach to infinity, and hold sigmoid(h + x) and sigmoid(h - x).

    Shapes: N pixels, at least one, C channels, K components; parameters (N, P), values uint8 (N, C); log p (N, C).
    """

    @staticmethod
    def forward(ctx, parameters: Tensor, values: Tensor, num_components: int, max_log_scale: float) -> Tensor:
        dtype = torch.promote_types(parameters.dtype, torch.float32)
        (num_pixels, channels), num_maps = values.shape, parameters.shape[1] // num_components
        # Memory is taken once: to take it anew for each chunk costs more than the arithmetic.
        log_prob = parameters.new_empty((num_pixels, channels), dtype=dtype)
        num_chunks = -(-num_pixels // _CHUNK_PIXELS)
        num_noted = num_chunks if ctx.needs_input_grad[0] else 1  # nobody goes back: each chunk may overwrite the last
        noted = parameters.new_empty((num_noted, num_maps + channels, num_components, _CHUNK_PIXELS), dtype=dtype)
        maps = parameters.new_empty((num_maps, num_components, _ROW), dtype=dtype)
        buffers = parameters.new_empty((_NUM_BUFFERS, channels, num_components, _CHUNK_PIXELS), dtype=dtype)
        chunks = (tensor.split(_CHUNK_PIXELS) for tensor in (parameters, values, log_prob))
        for rows, at, to_fill, to_note in zip(*chunks, noted.expand(num_chunks, -1, -1, -1), strict=True):
            here, work, note = (tensor[..., : len(rows)] for tensor in (maps, buffers, to_note))
            here.flatten(0, 1).copy_(rows.t())
            _forward(here, at.t(), max_log_scale, work, to_fill, note)
        ctx.save_for_backward(noted, values)
        ctx.dtype = parameters.dtype
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        noted, values = ctx.saved_tensors
        num_pixels, channels = values.shape
        num_maps, num_components = noted.shape[1] - channels, noted.shape[2]
        grad = noted.new_empty((num_pixels, num_maps * num_components), dtype=ctx.dtype)
        maps = noted.new_empty((num_maps, num_components, _ROW))
        buffer = noted.new_empty((channels, num_components, _CHUNK_PIXELS))
        chunks = (tensor.split(_CHUNK_PIXELS) for tensor in (grad, grad_output, values))
        for to_fill, grad_log_prob, at, of_chunk in zip(*chunks, noted, strict=True):
            here, work, note = (tensor[..., : len(at)] for tensor in (maps, buffer, of_chunk))
            _backward(grad_log_prob.t(), at.t(), note, work, here)
            to_fill.copy_(here.flatten(0, 1).t())
        return grad, None, None, None


def _forward(
    maps: Tensor, values: Tensor, max_log_scale: float, workspace: Tensor, log_prob: Tensor, noted: Tensor
) -> None:
    """Of n pixels `log_prob` (n, C), and `noted` for the way back.

    Args:
        maps: (P / K, K, n), the parameters.
        values: uint8 (C, n).
        max_log_scale: Bound of log scales.
        workspace: (`_NUM_BUFFERS`, C, K, n), to compute in.
        log_prob: What to fill.
        noted: (3 C + 1 + couplings, K, n), what to fill: slopes of log p of each component in its mean and in its log
            scale; the probability that a pixel belongs to it, given the channels so far; its weight; and couplings.
    """
    channels = len(values)
    logits, means, log_scales, couplings = _split(maps, channels)
    slope_mean, slope_log_scale, belonging, weights, tanh = _split_noted(noted, channels)
    x, inverse_scales, h, a, b, c = workspace
    torch.mul(couplings, 2, out=tanh).sigmoid_().mul_(2).sub_(1)  # half the time of tanh
    places = _places(values, maps.dtype)

    torch.sub(places, means, out=x)
    for coupling, (earlier, channel) in zip(tanh, _pairs(channels), strict=True):
        x[channel].addcmul_(coupling, places[earlier], value=-1)
    torch.clamp(log_scales, -max_log_scale, max_log_scale, out=inverse_scales).neg_().exp_()
    x.mul_(inverse_scales).clamp_(-_MAX_DISTANCE, _MAX_DISTANCE)
    torch.mul(inverse_scales, 1 / 255, out=h)

    log_probs, slope_x, slope_h = belonging, slope_mean, slope_log_scale
    _bins(x, h, log_probs, slope_x, slope_h, (a, b, c))
    _correct_outermost_bins(values, x, h, log_probs, slope_x, slope_h)
    slope_h.mul_(h).addcmul_(slope_x, x).neg_()
    if log_scales.abs().amax() > max_log_scale:
        slope_log_scale.masked_fill_(log_scales.abs() > max_log_scale, 0)
    slope_x.mul_(inverse_scales).neg_()

    log_weights = logits[0].log_softmax(0)
    torch.exp(log_weights, out=weights[0])
    for channel, joint in enumerate(log_probs):
        joint += log_weights
        highest = joint.amax(0)
        joint -= highest
        log_weights.copy_(joint)
        total = joint.exp_().sum(0)
        joint /= total
        log_total = total.log_()
        log_weights -= log_total  # of the components, given the channels so far
        log_prob[:, channel] = log_total.add_(highest)


def _backward(grad: Tensor, values: Tensor, noted: Tensor, of_log_probs: Tensor, maps: Tensor) -> None:
    """Fill `maps` (P / K, K, n), the gradient of the parameters, from `grad` (C, n), that of log p.

    `of_log_probs` (C, K, n) is memory to compute the gradient of each component's log p in.
    """
    channels = len(values)
    slope_mean, slope_log_scale, belonging, weights, tanh = _split_noted(noted, channels)
    of_logits, of_means, of_log_scales, of_couplings = _split(maps, channels)
    # log p of channel c is S_c - S_(c-1), where S_c is the log-sum over components of weight and channels up to c.
    of_sums = grad - F.pad(grad[1:], (0, 0, 0, 1))
    torch.mul(belonging, of_sums[:, None], out=of_log_probs)
    for channel in range(channels - 2, -1, -1):
        of_log_probs[channel] += of_log_probs[channel + 1]
    torch.addcmul(of_log_probs[0], weights[0], grad[0], value=-1, out=of_logits[0])
    torch.mul(slope_mean, of_log_probs, out=of_means)
    torch.mul(slope_log_scale, of_log_probs, out=of_log_scales)
    places = _places(values, maps.dtype)
    torch.mul(tanh, tanh, out=of_couplings).neg_().add_(1)
    for of_coupling, (earlier, channel) in zip(of_couplings, _pairs(channels), strict=True):
        of_coupling.mul_(of_means[channel]).mul_(places[earlier])


def _bins(
    x: Tensor, h: Tensor, log_probs: Tensor, slope_x: Tensor, slope_h: Tensor, buffers: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Fill the log-probability of the bins from x - h to x + h of the standard logistic, and its slopes in x and h."""
    one, two, three = buffers
    distance = torch.abs(x, out=slope_x)
    u = torch.neg(distance, out=one).exp_()
    outside = torch.neg(h, out=two).expm1_().neg_()  # 1 - q
    q = torch.sub(1, outside, out=three)
    inside = torch.addcmul(outside, outside, q, out=slope_h)  # 1 - q^2
    u_plus_q = torch.add(u, q, out=two)
    uq = u.mul_(q)
    torch.add(uq, 1, out=log_probs)
    far = uq.div_(log_probs)
    torch.div(inside, log_probs.mul_(u_plus_q), out=log_probs).log_().sub_(distance)
    near = torch.div(q, u_plus_q, out=two)
    torch.div(q.mul_(q).mul_(2), inside, out=slope_h).add_(far).add_(near)
    torch.sign(x, out=slope_x).mul_(far.sub_(near))


def _correct_outermost_bins(
    values: Tensor, x: Tensor, h: Tensor, log_probs: Tensor, slope_x: Tensor, slope_h: Tensor
) -> None:
    """What `_bins` gave, in place, where values (C, n) are 0 or 255: there are few of them."""
    channel, pixel = torch.nonzero((values == 0) | (values == 255), as_tuple=True)
    if len(channel) == 0:
        return
    at = (channel, slice(None), pixel)
    outwards = torch.where(values[channel, pixel] == 0, 1.0, -1.0).to(x.dtype)[:, None]
    inner_edge = x[at] * outwards + h[at]  # (E, K)
    log_probs[at] = F.logsigmoid(inner_edge)
    slope = torch.sigmoid(-inner_edge)
    slope_x[at] = slope * outwards
    slope_h[at] = slope


def _split(maps: Tensor, channels: int) -> Sequence[Tensor]:
    """Logits, means, log scales and couplings."""
    return maps.split((1, channels, channels, len(maps) - 1 - 2 * channels))


def _split_noted(noted: Tensor, channels: int) -> Sequence[Tensor]:
    return noted.split((channels, channels, channels, 1, len(noted) - 1 - 3 * channels))


def _places(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values (C, n) on the scale [-1, 1]: (C, 1, n)."""
    return values.to(dtype).div_(127.5).sub_(1)[:, None]


def _pairs(channels: int) -> list[tuple[int, int]]:
    """(earlier, later) of each coupling: R to G, R to B, G to B."""
    return sorted(combinations(range(channels), 2), key=lambda pair: pair[1])
