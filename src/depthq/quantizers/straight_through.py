"""Codewords forward, gradients straight through, and the two losses of Eq. 5."""

from collections.abc import Sequence

import torch
from torch import Tensor


def straight_through(slots: Tensor, codewords: Tensor, codebook_dims: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Replace latents by their codewords, exactly, while the gradient goes to the latents.

    Shapes: N rows of M slots of D columns each; slot m has codebook_dims[m] real columns, the others are zero.

    Args:
        slots: float32 (N, M * D), the latents.
        codewords: float32 (N, M * D), their codewords; with gradient if the codebooks are learned by it.
        codebook_dims: D_m of each codebook.

    Returns:
        `codewords` with the straight-through gradient; the commitment loss and the codebook loss (Eq. 5): squared
        distance, mean over rows and real columns, summed over codebooks. Both are 0 where there are no rows.
    """
    weight = _column_weight(slots, codebook_dims)
    quantized, commitment_loss = _StraightThrough.apply(slots, codewords, weight)
    if not codewords.requires_grad:
        return quantized, commitment_loss, commitment_loss.new_zeros(())
    codebook_loss = ((codewords - slots.detach()).square() * weight).sum()
    return quantized, commitment_loss, codebook_loss


def _column_weight(slots: Tensor, codebook_dims: Sequence[int]) -> Tensor:
    """What a squared difference counts: 1 / (N * D_m); one number where all D_m agree, else one per column."""
    rows = max(slots.shape[0], 1)
    if len(set(codebook_dims)) == 1:
        return slots.new_tensor(1 / (rows * codebook_dims[0]))
    dims = torch.tensor(codebook_dims, dtype=slots.dtype, device=slots.device)
    return (1 / (rows * dims)).repeat_interleave(slots.shape[1] // len(codebook_dims))


class _StraightThrough(torch.autograd.Function):
    """(latents, codewords) -> (codewords, commitment loss), with one fused pass over the rows in each direction."""

    @staticmethod
    def forward(ctx, slots: Tensor, codewords: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(slots, codewords, weight)
        if weight.dim() == 0:
            loss = torch.nn.functional.mse_loss(slots, codewords, reduction="sum") * weight
        else:
            loss = ((slots - codewords).square() * weight).sum()
        return codewords.view_as(codewords), loss

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad_quantized, grad_loss = grads
        slots, codewords, weight = ctx.saved_tensors
        grad = torch.sub(slots, codewords).mul_(2 * weight * grad_loss)
        return grad.add_(grad_quantized), None, None
