"""Codewords forward, gradients straight through, and the two losses of Eq. 5."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def straight_through(latents: Tensor, codewords: Tensor, codebook_dims: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Replace latents by their codewords, exactly, while the gradient goes to the latents.

    Shapes: N rows of M slots of D columns each; slot m has codebook_dims[m] real columns, the others are zero.

    Args:
        latents: float32 (N, M, D).
        codewords: float32 (N, M, D), those nearest to the latents; with gradient if they are learned by it.
        codebook_dims: D_m of each codebook.

    Returns:
        `codewords` with the straight-through gradient; the commitment loss and the codebook loss (Eq. 5): squared
        distance, mean over rows and real columns, summed over codebooks. Both are 0 where there are no rows.
    """
    weights = column_weights(latents, codebook_dims)
    difference = latents.detach() - codewords.detach()
    quantized, commitment_loss = StraightThrough.apply(
        latents, codewords.detach(), squared_distance(difference, weights), difference, weights
    )
    return quantized, commitment_loss, codebook_loss(latents, codewords, weights)


def column_weights(latents: Tensor, codebook_dims: Sequence[int]) -> Tensor:
    """What a squared difference counts in the losses, 1 / (N * D_m): (M, 1), or where all D_m agree the one number."""
    dims = codebook_dims[:1] if len(set(codebook_dims)) == 1 else codebook_dims
    weights = 1 / (latents.new_tensor(dims) * max(latents.shape[0], 1))
    return weights[0] if len(dims) == 1 else weights[:, None]  # one number: the way back takes half the time


def squared_distance(difference: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of squares of (N, M, D), in one pass and without another array of that size."""
    squares = torch.linalg.vector_norm(difference, dim=2).square()  # (N, M)
    return (squares.sum(0) * weights.flatten()).sum()


def codebook_loss(latents: Tensor, codewords: Tensor, weights: Tensor) -> Tensor:
    """The second term of Eq. 5, whose gradient goes to the codewords; 0 if they take none."""
    if not codewords.requires_grad:
        return latents.new_zeros(())
    return ((codewords - latents.detach()).square() * weights).sum()


class StraightThrough(torch.autograd.Function):
    """(latents, quantized, loss, difference, weights) -> (quantized, loss), both differentiable in the latents alone.

    `loss` is the commitment loss and 2 * weights * difference its gradient, so that the way back is one fused pass.
    """

    @staticmethod
    def forward(
        ctx, latents: Tensor, quantized: Tensor, loss: Tensor, difference: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(difference, weights)
        return quantized.view_as(quantized), loss.view_as(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        grad_quantized, grad_loss = grads
        difference, weights = ctx.saved_tensors
        return torch.addcmul(grad_quantized, difference, 2 * weights * grad_loss), None, None, None, None


def pass_gradient(latents: Tensor, values: Tensor) -> Tensor:
    """`values`, bit for bit, whose gradient goes to `latents` of the same shape."""
    return PassGradient.apply(latents, values)


class PassGradient(torch.autograd.Function):
    """(latents, values) -> values, differentiable in the latents alone, as if it gave them back."""

    @staticmethod
    def forward(ctx, latents: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
