"""Codes that are evenly used: the nearest codeword once each has a price."""

from collections.abc import Sequence

import torch
from torch import Tensor

from depthq.ops import nearest_code, segment_sums
from depthq.quantizers.learned import LearnedQuantizer, SingleStageQuantizer

ROUNDS = 100
STEP = 0.1


class BalancedCodes:
    """Codes of a trained quantizer such that each codeword gets about as many vectors as any other.

    The code of a vector x is the k with the least |x - c_k|^2 + price_k: the dual of optimal transport to codewords
    of equal weight. Prices are learned from a sample; a codeword asked for more than its share gets dearer. The
    quantizer stays as it is, and decodes the codes.

    Args:
        quantizer: With learned codebooks, side by side or residual.
        sample: What it takes as x, batch first; enough of it that each code of a codebook has some vectors.

    Attributes:
        prices: float32 (M, K), at least 0, in units of squared distance; 0 for padding.
    """

    def __init__(self, quantizer: LearnedQuantizer, sample: Tensor):
        self.quantizer = quantizer
        weight = quantizer.state.weight
        self.prices = torch.zeros(weight.shape[:2], dtype=torch.float32, device=weight.device)
        self._encode(sample, learn=True)

    def encode(self, x: Tensor) -> Tensor:
        """Codes, int64 (B, M, *positions), of x."""
        return self._encode(x)

    @torch.no_grad()
    def _encode(self, x: Tensor, learn: bool = False) -> Tensor:
        quantizer = self.quantizer
        quantizer._check_input(x)
        rows = quantizer._enter(quantizer._rows(x.to(self.prices.device), None))
        if isinstance(quantizer, SingleStageQuantizer):
            codes = self._search(quantizer._directed(quantizer._slots(rows)).transpose(0, 1), slice(None), learn)
        else:
            codes = self._search_stages(rows[None], learn)
        return quantizer._positions(codes.t(), x, None, fill=-1).movedim(-1, 1)

    def _search_stages(self, residual: Tensor, learn: bool) -> Tensor:
        """Codes (M, N) of residuals (1, N, D)."""
        found = []
        for stage in range(self.quantizer.num_codebooks):
            which = slice(stage, stage + 1)
            found.append(self._search(self.quantizer._directed(residual), which, learn))
            residual = residual - self.quantizer.state.lookup(found[-1].t(), which).transpose(0, 1)
        return torch.cat(found)

    def _search(self, latents: Tensor, which: slice, learn: bool) -> Tensor:
        """Codes (m, N) of latents (m, N, D)."""
        state = self.quantizer.state
        codebooks, sizes = state.searched(which).detach(), state.codebook_sizes[which]
        if learn:
            self._learn(latents, codebooks, sizes, which)
        return _priced_codes(latents, codebooks, sizes, self.prices[which], state.backend)

    def _learn(self, latents: Tensor, codebooks: Tensor, sizes: Sequence[int], which: slice) -> None:
        """Move prices by how far each code is from its share, in units of the distance that a vector has anyway."""
        codes = _priced_codes(latents, codebooks, sizes, self.prices[which], None)
        nearest = codebooks.gather(1, codes[..., None].expand(-1, -1, codebooks.shape[2]))
        unit = (latents - nearest).square().sum(2).mean(1, keepdim=True)  # (m, 1)
        is_code = self.quantizer.state.is_code[which]
        share = latents.shape[1] / is_code.sum(1, keepdim=True)
        for round_ in range(ROUNDS):
            counts, _ = segment_sums(latents, codes, codebooks.shape[1])
            step = STEP * unit * (1 - round_ / ROUNDS)
            prices = self.prices[which] + step * ((counts + 1) / (share + 1)).log()
            prices -= prices.masked_fill(~is_code, torch.inf).amin(1, keepdim=True)
            self.prices[which] = prices.where(is_code, 0)
            codes = _priced_codes(latents, codebooks, sizes, self.prices[which], None)


def _priced_codes(
    latents: Tensor, codebooks: Tensor, sizes: Sequence[int], prices: Tensor, backend: str | None
) -> Tensor:
    """A price is one more dimension, in which latents are 0: |x - c|^2 + price = |(x, 0) - (c, sqrt(price))|^2."""
    latents = torch.nn.functional.pad(latents, (0, 1))
    codebooks = torch.cat([codebooks, prices.sqrt()[..., None]], 2)
    return nearest_code(latents, codebooks, codebook_sizes=sizes, backend=backend)
