"""Codewords forward, gradients past them to the latents, and the two losses of Eq. 5."""

from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST_SQUARE = 1e-6
"""Of the sum of two directions: below it they are as good as opposite, and no plane is theirs."""


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
        latents, codewords.detach(), squared_distance(difference, weights), difference, weights, 1
    )
    return quantized, commitment_loss, codebook_loss(latents, codewords, weights)


def rotate(latents: Tensor, codewords: Tensor) -> Tensor:
    """`codewords`, bit for bit, whose gradient reaches the latents as through the rotation and scaling between the two.

    The rotation trick (Fifty et al., "Restructuring Vector Quantization with the Rotation Trick", 2024, Sec. 4): with
    e a latent and q its codeword, q = s R e, where s = |q| / |e| and R turns e towards q in the plane of the two; s and
    R count as constants. The angle between gradient and codeword is then that between its gradient and the latent.
    Where e or q has length 0, or they are opposite, there is no such rotation, and the gradient passes as it is.

    Args:
        latents: float32 (..., D).
        codewords: float32 (..., D), without gradient.
    """
    return Rotation.apply(latents, codewords)


class Rotation(torch.autograd.Function):
    """(latents, codewords) -> codewords, differentiable in the latents alone: see `rotate`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(latents: Tensor, codewords: Tensor) -> Tensor:
        return codewords.view_as(codewords)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        latents, codewords = (saved.detach() for saved in ctx.saved_tensors)  # s and R are constants
        (grad,) = grads
        lengths = [torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) for vectors in (latents, codewords)]
        e, q = (x / length.where(length > 0, 1) for x, length in zip((latents, codewords), lengths, strict=True))
        middle = e + q
        squared = middle.square().sum(-1, keepdim=True)
        has_rotation = (lengths[0] > 0) & (lengths[1] > 0) & (squared > SMALLEST_SQUARE)
        # 1 where there is none: what is divided by 0 would be NaN in a second derivative, though nothing takes it.
        squared, length = squared.where(has_rotation, 1), lengths[0].where(has_rotation, 1)
        # R = I - 2 r r' + 2 q e' with r = (e + q) / |e + q|; its transpose brings the gradient back.
        reflected = middle * ((middle * grad).sum(-1, keepdim=True) / squared)
        turned = grad - 2 * reflected + 2 * e * (q * grad).sum(-1, keepdim=True)
        return torch.where(has_rotation, turned * (lengths[1] / length), grad), None


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
    """(latents, quantized, loss, difference, weights, num_terms) -> (quantized, loss), differentiable in the latents.

    `loss` is the commitment loss and 2 * weights * difference its gradient, so that the way back is one fused pass.
    `num_terms` is how many squares a latent has in the loss, for who differentiates twice.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        latents: Tensor, quantized: Tensor, loss: Tensor, difference: Tensor, weights: Tensor, num_terms: int
    ) -> tuple[Tensor, Tensor]:
        return quantized.view_as(quantized), loss.view_as(loss)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        latents, _, _, difference, weights, ctx.num_terms = inputs
        ctx.save_for_backward(latents, difference, weights)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        grad_quantized, grad_loss = grads
        latents, difference, weights = ctx.saved_tensors
        if (
            torch.is_grad_enabled()
        ):  # a second derivative is asked for, and each term's difference moves with its latent
            difference = difference + ctx.num_terms * (latents - latents.detach())
        return torch.addcmul(grad_quantized, difference, 2 * weights * grad_loss), None, None, None, None, None


def pass_gradient(latents: Tensor, values: Tensor) -> Tensor:
    """`values`, bit for bit, whose gradient goes to `latents` of the same shape."""
    return PassGradient.apply(latents, values)


class PassGradient(torch.autograd.Function):
    """(latents, values) -> values, differentiable in the latents alone, as if it gave them back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(latents: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
