"""The entropy loss of codes: certain for each vector, even over the batch."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from depthq.quantizers.base import as_number
from depthq.quantizers.processes import GlobalRows

BLOCK_NUMEL = 2**22  # rows times codewords held at once
TINY = 1e-30


def code_entropy_loss(
    latents: Tensor,
    codebooks: Tensor,
    codebook_sizes: Sequence[int],
    inverse_temperature: float,
    global_rows: GlobalRows | None,
) -> Tensor:
    """Mean entropy of a vector's code, less the entropy of the batch's mean; nats, summed over codebooks, unweighted.

    The code of a vector x is k with probability softmax(-t |x - c_k|^2). Lookup-free quantization (Yu et al. 2023,
    Eq. 5) introduced the loss for codes; for codewords that are learned see IBQ (Shi et al. 2024). It is computed in
    blocks, forward and backward, so that no array of N x K is held; twice differentiated it cannot be.

    Args:
        latents: float32 (M, N, D), with gradient.
        codebooks: float32 (M, K, D); with gradient if they are learned by it.
        codebook_sizes: K_m of each codebook.
        inverse_temperature: t, positive.
        global_rows: The rows of all processes: the batch's mean is then over all of them, and the mean of all
            processes' gradients that of the joined batch, as long as each has as many rows. None: these rows alone.
    """
    return CodeEntropy.apply(latents, codebooks, codebook_sizes, inverse_temperature, global_rows)[0]


class CodeEntropy(torch.autograd.Function):
    """The loss of `code_entropy_loss`, and the logarithm of the batch's mean probabilities (M, K).

    With p_nk a vector's probabilities and p_k their mean, the way back to the scores is
    p_nk (g_nk - sum_j p_nj g_nj) / N with g_nk = log p_k - log p_nk.
    """

    @staticmethod
    def forward(latents, codebooks, codebook_sizes, inverse_temperature, global_rows) -> tuple[Tensor, Tensor]:
        num_rows = latents.shape[1]
        sums = latents.new_zeros(codebooks.shape[:2])
        per_vector = latents.new_zeros(())
        for codebook, size in enumerate(codebook_sizes):
            codewords = codebooks[codebook, :size]
            for _, log_p in _blocks(latents[codebook], codewords, inverse_temperature):
                p = log_p.exp()
                sums[codebook, :size] += p.sum(0)
                per_vector -= (p * log_p).sum()
        total = num_rows if global_rows is None else global_rows.total
        if global_rows is not None:
            global_rows.sum_over_processes(sums)
        mean = sums / max(total, 1)
        log_mean = mean.clamp(min=TINY).log()
        return per_vector / max(num_rows, 1) + (mean * log_mean).sum(), log_mean

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        latents, codebooks, ctx.codebook_sizes, ctx.inverse_temperature, _ = inputs
        ctx.save_for_backward(latents, codebooks, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, *grads: Tensor):
        latents, codebooks, log_mean = ctx.saved_tensors
        scale = grads[0] * 2 * ctx.inverse_temperature / max(latents.shape[1], 1)
        grad_latents = torch.empty_like(latents)
        grad_codebooks = torch.zeros_like(codebooks) if ctx.needs_input_grad[1] else None
        for codebook, size in enumerate(ctx.codebook_sizes):
            codewords = codebooks[codebook, :size]
            for part, log_p in _blocks(latents[codebook], codewords, ctx.inverse_temperature):
                p, slope = log_p.exp(), log_mean[codebook, :size] - log_p
                scores = p * (slope - (p * slope).sum(1, keepdim=True))  # their sum over codes is 0: |x|^2 cancels
                grad_latents[codebook, part] = scores @ codewords * scale
                if grad_codebooks is not None:
                    pull = scores.T @ latents[codebook, part] - scores.sum(0)[:, None] * codewords
                    grad_codebooks[codebook, :size] += pull * scale
        return Once.apply(grad_latents, latents), grad_codebooks, None, None, None


class Once(torch.autograd.Function):
    """(gradient, latents) -> gradient, which refuses to be differentiated by the latents: it would be 0, wrongly."""

    @staticmethod
    def forward(gradient: Tensor, latents: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, *grads: Tensor):
        raise RuntimeError(
            "the entropy loss cannot be differentiated twice; set entropy_weight to 0 where a gradient is penalised"
        )


def check_entropy_options(entropy_weight: float, inverse_temperature: float) -> tuple[float, float]:
    """Both as Python's own numbers; raises ValueError unless the weight is finite and at least 0, the inverse
    temperature finite and positive."""
    entropy_weight = as_number("entropy_weight", entropy_weight)
    inverse_temperature = as_number("inverse_temperature", inverse_temperature)
    if not 0 <= entropy_weight < math.inf:
        raise ValueError(f"entropy_weight must be finite and at least 0; got {entropy_weight}")
    if not 0 < inverse_temperature < math.inf:
        raise ValueError(f"inverse_temperature must be finite and positive; got {inverse_temperature}")
    return entropy_weight, inverse_temperature


def _blocks(rows: Tensor, codewords: Tensor, inverse_temperature: float) -> Iterator[tuple[slice, Tensor]]:
    """Which rows, and the logarithm of their codes' probabilities (n, K)."""
    halved = codewords.square().sum(1) / 2
    block = max(1, BLOCK_NUMEL // len(codewords))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        yield part, torch.log_softmax(2 * inverse_temperature * (rows[part] @ codewords.T - halved), dim=1)
