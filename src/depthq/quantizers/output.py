"""What every quantizer returns."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.utils._pytree import register_pytree_node

from depthq.codes import CodebookUsage, count_codes


@dataclass(frozen=True)
class QuantizedRows:
    """What a quantizer makes of N rows, before they go back to their positions; losses as in `QuantizerOutput`."""

    quantized: Tensor
    """float32 (N, out_dim), exactly what the codes decode to; gradients pass straight through to the rows."""
    codes: Tensor
    """int64 (N, M)."""
    commitment_loss: Tensor
    codebook_loss: Tensor
    entropy_loss: Tensor


@dataclass(frozen=True)
class QuantizerOutput:
    """One forward pass of M codebooks over `positions`, which are all axes but the batch's and the split one."""

    quantized: Tensor
    """What the codes stand for, in the shape and dtype of the input; gradients pass straight through to it.
    In memory the entries of a vector may lie side by side: `reshape` it where `view` refuses."""
    codes: Tensor
    """int64 (B, M, *positions); -1 where masked."""
    commitment_loss: Tensor
    """Scalar: (latent - sg[codeword])^2, mean over vectors and dimensions, summed over codebooks; not yet weighted."""
    codebook_loss: Tensor
    """Scalar: the same with the stop-gradient on the latent; 0 for codebooks that take no gradient."""
    entropy_loss: Tensor
    """Scalar, weighted: what keeps codes certain and evenly used; 0 where `entropy_weight` is."""
    loss: Tensor
    """Scalar to add to the network's own loss: codebook_loss + commitment_weight * commitment_loss (Eq. 5) +
    entropy_loss."""
    codebook_sizes: tuple[int, ...]
    """K_m of each codebook."""

    @cached_property
    def _codebook_usage(self) -> CodebookUsage:
        return CodebookUsage.from_counts(count_codes(self.codes, self.codebook_sizes), self.codebook_sizes)

    @property
    def perplexity(self) -> Tensor:
        """(M,) exp(entropy in nats) of this batch's codes, 1..K; computed when first read."""
        return self._codebook_usage.perplexity

    @property
    def usage(self) -> Tensor:
        """(M,) share of the K codes that occur in this batch, 0..1; computed when first read."""
        return self._codebook_usage.usage


_TENSORS = ("quantized", "codes", "commitment_loss", "codebook_loss", "entropy_loss", "loss")


def _flatten(output: QuantizerOutput) -> tuple[list[Tensor], tuple[int, ...]]:
    return [getattr(output, name) for name in _TENSORS], output.codebook_sizes


def _unflatten(tensors: Iterable[Tensor], codebook_sizes: Any) -> QuantizerOutput:
    return QuantizerOutput(**dict(zip(_TENSORS, tensors, strict=True)), codebook_sizes=tuple(codebook_sizes))


# What torch.export and torch.func ask of what a module returns: its tensors are leaves, the sizes are structure.
register_pytree_node(
    QuantizerOutput,
    _flatten,
    _unflatten,
    serialized_type_name="depthq.QuantizerOutput",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
)
