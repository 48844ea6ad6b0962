"""Residual quantization: each codebook quantizes what the ones before left."""

from collections.abc import Sequence

import torch

from depthq.quantizers.base import Quantizer, check_num_codebooks, make_state
from depthq.quantizers.codebooks import CodebookUpdate
from depthq.quantizers.straight_through import straight_through


class ResidualQuantizer(Quantizer):
    """Approximates one D-dimensional vector by a sum of M codewords, found greedily one codebook after the other.

    Not in the paper: the strongest of today's common baselines, for comparisons at equal bits. Each stage has its own
    commitment loss on the residual it saw; the losses are summed over stages.

    Args:
        dim: D, the size of `axis` and of every codeword.
        num_codebooks: M, the number of stages.
        codebook_size: K, an int or one per codebook; at least 1.
        axis: The axis that holds the vector; any but the batch's (0).
        commitment_weight: beta of Eq. 5.
        codebook_update: "ema" (App. A.4), or "gradient" for the second term of Eq. 5.
        decay: EMA decay.
        epsilon: Laplace smoothing of the EMA counts.
        rare_code_threshold: Codes used less than this share of the mean are re-drawn from the batch (Sec. 4.2).
        check_finite: Refuse NaN and infinity in training.

    Raises:
        ValueError: If a size is out of range.
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int | Sequence[int],
        *,
        axis: int = 1,
        commitment_weight: float = 0.25,
        codebook_update: CodebookUpdate = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-5,
        rare_code_threshold: float = 0.1,
        check_finite: bool = True,
    ):
        super().__init__()
        check_num_codebooks(num_codebooks)
        self.dim = self.out_dim = dim
        self.axis = axis
        self.commitment_weight = commitment_weight
        self.check_finite = check_finite
        dims = (dim,) * num_codebooks
        self.state = make_state(
            num_codebooks, codebook_size, dims, codebook_update, decay, epsilon, rare_code_threshold
        )

    def extra_repr(self) -> str:
        return f"dim={self.dim}, num_codebooks={self.num_codebooks}"

    def _quantize(self, rows, global_rows):
        residual = rows
        quantized = torch.zeros_like(rows)
        codes, commitment_loss, codebook_loss = [], 0.0, 0.0
        for stage in range(self.num_codebooks):
            which = slice(stage, stage + 1)
            latents = residual.detach()[None]  # (1, N, D)
            if global_rows is not None:
                self.state.refresh(latents, global_rows, which)
            found = self.state.search(latents, which)  # (1, N)
            if global_rows is not None:
                self.state.accumulate(latents, found, global_rows, which)
            codewords = self.state.lookup(found.t(), which).flatten(1)  # (N, D)
            _, stage_commitment, stage_codebook = straight_through(residual, codewords, (self.dim,))
            commitment_loss, codebook_loss = (
                commitment_loss + stage_commitment,
                codebook_loss + stage_codebook,
            )
            residual = residual - codewords.detach()
            quantized = quantized + codewords.detach()
            codes.append(found[0])
        quantized, _, _ = straight_through(rows, quantized, (self.dim,))
        return quantized, torch.stack(codes, 1), commitment_loss, codebook_loss

    def _search(self, rows):
        codes = []
        for stage in range(self.num_codebooks):
            which = slice(stage, stage + 1)
            found = self.state.search(rows[None], which)
            rows = rows - self.state.lookup(found.t(), which).flatten(1)
            codes.append(found[0])
        return torch.stack(codes, 1)

    def _lookup(self, codes):
        codewords = self.state.lookup(codes)  # (N, M, D)
        quantized = torch.zeros_like(codewords[:, 0])
        for stage in range(self.num_codebooks):  # in this order: float addition does not associate
            quantized = quantized + codewords[:, stage]
        return quantized
