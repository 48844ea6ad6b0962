"""Residual quantization: each codebook quantizes what the ones before left."""

from collections.abc import Iterator, Sequence
from typing import Unpack

import torch
from torch import Tensor

from depthq.quantizers.base import as_number, as_size
from depthq.quantizers.counter_random import random_uniform
from depthq.quantizers.learned import CodebookOptions, LearnedQuantizer, codeword_dim, sum_in_order, sum_of_first
from depthq.quantizers.output import QuantizedRows
from depthq.quantizers.processes import GlobalRows
from depthq.quantizers.sphere import on_sphere
from depthq.quantizers.straight_through import (
    StraightThrough,
    codebook_loss,
    column_weights,
    pass_gradient,
    rotate,
    squared_distance,
)


class ResidualQuantizer(LearnedQuantizer):
    """Approximates one D-dimensional vector by a sum of M codewords, found greedily one codebook after the other.

    Not in the paper: the strongest of today's common baselines, for comparisons at equal bits. Each stage has its own
    commitment loss on the residual it saw; the losses are summed over stages.

    Args:
        dim: D, the size of `axis` and of every codeword.
        num_codebooks: M, the number of stages.
        codebook_size: K, an int or one per codebook; at least 1.
        codebook_dim: Of the codewords, by default and at most `dim`. If smaller, linear layers lead from `dim` there
            and back to `dim` (`project_in`, `project_out`).
        quantizer_dropout: Probability, 0..1, that a training step uses the first n codebooks alone, n uniform in 1..M:
            for decoding at several rates (SoundStream, Sec. III-C). Its codes are (B, n, *positions), and the codebooks
            left out do not learn: cheaper than `codebook_dropout`, which draws anew for each entry of the batch.
        options: The others are those of `CodebookOptions`.

    Raises:
        ValueError: If a size or an option is out of range.
        TypeError: If there is no such option.
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int | Sequence[int],
        *,
        codebook_dim: int | None = None,
        quantizer_dropout: float = 0.0,
        **options: Unpack[CodebookOptions],
    ):
        dim, num_codebooks = as_size("dim", dim), as_size("num_codebooks", num_codebooks)
        quantizer_dropout = as_number("quantizer_dropout", quantizer_dropout)
        if not 0 <= quantizer_dropout <= 1:
            raise ValueError(f"quantizer_dropout must lie in [0, 1]; got {quantizer_dropout}")
        inner = codeword_dim(dim, codebook_dim)
        projected = (inner, inner) if inner < dim else None
        super().__init__(dim, dim, codebook_size, (inner,) * num_codebooks, projected=projected, **options)
        self.quantizer_dropout = quantizer_dropout

    def _quantize(self, rows: Tensor, global_rows: GlobalRows | None) -> QuantizedRows:
        num_kept = self.num_codebooks
        if global_rows is not None:
            self.state.begin_step()
            num_kept = self._num_kept()
        if self.state.is_cosine:
            return self._quantize_directions(rows, num_kept, global_rows)
        latents = rows.unsqueeze(1)  # (N, 1, D)
        weights = column_weights(latents, self.state.codebook_dims)
        quantized, differences = torch.zeros_like(latents), torch.zeros_like(latents)
        codes, commitment, codebook = [], latents.new_zeros(()), latents.new_zeros(())
        entropy = latents.new_zeros(())
        for found, residual, codewords in self._stages(rows, num_kept, global_rows):
            codes.append(found)
            codebook = codebook + codebook_loss(residual, codewords, weights)
            codewords = codewords.detach()
            entropy = entropy + self._stage_entropy_loss(latents - quantized, global_rows, len(codes) - 1)
            quantized = quantized + codewords
            difference = residual - codewords
            commitment = commitment + squared_distance(difference, weights)
            # Each stage's residual is the latent less constants, so their gradients add up in the latent.
            differences = differences + difference
        passed, commitment = StraightThrough.apply(latents, quantized, commitment, differences, weights, num_kept)
        if self.rotation_trick:
            passed = rotate(latents, quantized)
        return QuantizedRows(passed.squeeze(1), torch.stack(codes, 1), commitment, codebook, entropy)

    def _quantize_directions(self, rows: Tensor, num_kept: int, global_rows: GlobalRows | None) -> QuantizedRows:
        """Each stage compares the direction of what is left, and takes its codeword, of length 1, off that."""
        residual, codes = rows.unsqueeze(1), []
        weights = column_weights(residual, self.state.codebook_dims)
        commitment, codebook, entropy = rows.new_zeros(()), rows.new_zeros(()), rows.new_zeros(())
        quantized = torch.zeros_like(residual)
        for found, seen, codewords in self._stages(rows, num_kept, global_rows):
            codes.append(found)
            codebook = codebook + codebook_loss(seen, codewords, weights)
            codewords = codewords.detach()
            direction = on_sphere(residual - quantized)
            commitment = commitment + (weights * (direction - codewords).square()).sum()
            entropy = entropy + self._stage_entropy_loss(direction, global_rows, len(codes) - 1)
            quantized = quantized + codewords
        passed = rotate(residual, quantized) if self.rotation_trick else pass_gradient(residual, quantized)
        return QuantizedRows(passed.squeeze(1), torch.stack(codes, 1), commitment, codebook, entropy)

    def _stage_entropy_loss(self, seen: Tensor, global_rows: GlobalRows | None, stage: int) -> Tensor:
        return self._entropy_loss(seen.transpose(0, 1), global_rows, slice(stage, stage + 1))

    def _search(self, rows):
        return torch.stack([found for found, _, _ in self._stages(rows, self.num_codebooks)], 1)

    def _lookup(self, codes):
        return sum_in_order(self.state.lookup(codes))

    def _keep(self, quantized, codes, num_kept):
        codewords = self.state.lookup(codes, slice(codes.shape[1]))
        return pass_gradient(quantized, sum_of_first(codewords, num_kept))

    def _stages(
        self, rows: Tensor, num_stages: int, global_rows: GlobalRows | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Per stage its codes (N,), the residual, or direction, that it saw and the codewords that it chose, both
        (N, 1, D)."""
        residual = rows.detach().unsqueeze(1)
        for stage in range(num_stages):
            which = slice(stage, stage + 1)
            seen = self._directed(residual)
            latents = seen.transpose(0, 1)  # (1, N, D)
            if global_rows is not None:
                self.state.refresh(latents, global_rows, which)
            codes = self.state.search(latents, which).t()  # (N, 1)
            if global_rows is not None:
                self.state.accumulate(latents, codes.t(), global_rows, which)
            codewords = self.state.lookup(codes, which)
            yield codes[:, 0], seen, codewords
            residual = residual - codewords.detach()

    def _num_kept(self) -> int:
        """How many codebooks this training step uses: a function of the step, hence the same in all processes."""
        if self.quantizer_dropout == 0 or self.state.fitting or self.state.is_frozen:
            return self.num_codebooks
        draw = float(random_uniform(~self.state.num_updates)) / self.quantizer_dropout
        return 1 + int(draw * self.num_codebooks) if draw < 1 else self.num_codebooks

    def _mean_squared_error(self, x, out):
        """Of what all stages together leave."""
        return (out.quantized - x).square().mean()
