"""What every quantizer returns."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

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
    """What the codes stand for, in the dtype and layout of the input; gradients pass straight through to it."""
    codes: Tensor
    """int64 (B, M, *positions); -1 where masked."""
    commitment_loss: Tensor
    """Scalar: (latent - sg[codeword])^2, mean over vectors and dimensions, summed over codebooks; not yet weighted."""
    codebook_loss: Tensor
    """Scalar: the same with the stop-gradient on the latent; 0 for codebooks that take no gradient."""
    entropy_loss: Tensor
    """Scalar, weighted: what keeps codes certain and evenly used where no codebook is learned; 0 elsewhere."""
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
