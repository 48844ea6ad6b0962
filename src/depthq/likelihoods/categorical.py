"""A 256-way categorical per sub-pixel."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from depthq.likelihoods.base import Likelihood, sample_index

_NUM_VALUES = 256
_STEEPEST_TILT = 5.0
"""How far the logits of black and white start from those of mid-grey, in units of the weight that was drawn."""
_CHUNK_ROWS = 1024
"""Sub-pixels per chunk on a CPU: 1 MiB of float32 logits, which stays in the cache of a core."""


class CategoricalLikelihood(Likelihood):
    """One free probability for each of the 256 values of a sub-pixel; "ce" in the paper (App. A.4).

    Parameters, P = 256 C: the logit of value v of channel c is at c * 256 + v. So in channels_last the 256
    logits of a sub-pixel lie side by side.
    """

    is_discrete: ClassVar[bool] = True
    needs_float32: ClassVar[bool] = False
    head_learning_rate: ClassVar[float] = 5.0

    def __init__(self, image_channels: int):
        super().__init__(image_channels)
        self.num_parameters = image_channels * _NUM_VALUES

    @torch.no_grad()
    def start(self, head: nn.Conv2d) -> None:
        """All values alike, and logits that tilt towards bright or dark: as one regression per channel at first.

        With weights of its own each value learns alone what its neighbours on the grey scale know too.
        """
        assert head.bias is not None
        nn.init.zeros_(head.bias)
        weights = head.weight.unflatten(0, (self.image_channels, _NUM_VALUES))  # (C, 256, F, 1, 1)
        places = torch.linspace(-_STEEPEST_TILT, _STEEPEST_TILT, _NUM_VALUES)
        weights.copy_(weights[:, :1] * places.view(-1, 1, 1, 1))

    def _log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        logits = self._logits(parameters)
        values = images.permute(0, 2, 3, 1).long()  # (B, H, W, C)
        in_chunks = parameters.device.type == "cpu" and not torch.compiler.is_compiling()
        log_prob_rows = _ChunkedLogProb.apply if in_chunks else reference_log_prob_rows
        rows = log_prob_rows(logits.reshape(-1, _NUM_VALUES), values.reshape(-1))
        return rows.view(values.shape).permute(0, 3, 1, 2)

    def _mean(self, parameters: Tensor) -> Tensor:
        values = torch.arange(_NUM_VALUES, dtype=torch.float32, device=parameters.device)
        return (self._logits(parameters).softmax(-1) @ values).permute(0, 3, 1, 2)

    def _sample(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        values = sample_index(self._logits(parameters), -1, generator).squeeze(-1)
        return values.permute(0, 3, 1, 2).to(torch.uint8)

    def _logits(self, parameters: Tensor) -> Tensor:
        """(B, H, W, C, 256); a view."""
        return parameters.permute(0, 2, 3, 1).unflatten(-1, (self.image_channels, _NUM_VALUES))


def reference_log_prob_rows(logits: Tensor, values: Tensor) -> Tensor:
    """log softmax(logits)[values], float32 (N,); logits (N, 256) of any precision, values int64 (N,)."""
    return -F.cross_entropy(logits.float(), values, reduction="none")


class _ChunkedLogProb(torch.autograd.Function):
    """`reference_log_prob_rows` for CPUs, where memory traffic is what costs.

    64 images of 32x32 have 50 million logits. The reference writes them out several times in float32; here
    chunks of rows stay in the cache, and the backward pass takes the softmax again rather than keep it.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, values: Tensor) -> Tensor:
        values = values[:, None]
        ctx.save_for_backward(logits, values)
        chunks = zip(logits.split(_CHUNK_ROWS), values.split(_CHUNK_ROWS), strict=True)
        parts = [rows.log_softmax(1, dtype=torch.float32).gather(1, at) for rows, at in chunks]
        return torch.cat(parts).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        logits, values = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        tensors = (grad_logits, logits, values, grad_output[:, None])
        for grad_rows, rows, at, grad in zip(*(tensor.split(_CHUNK_ROWS) for tensor in tensors), strict=True):
            # d log p(v) / d logit_j = [j = v] - p(j)
            probabilities = rows.softmax(1, dtype=torch.float32)
            grad_rows.copy_(probabilities.mul_(-grad).scatter_add_(1, at, grad))
        return grad_logits, None
