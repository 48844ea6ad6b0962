"""The paper's baseline "VQ": one vector, seen by all M codebooks."""

from collections.abc import Sequence
from typing import Literal, Unpack

from depthq.quantizers.base import as_size, keep_columns
from depthq.quantizers.learned import CodebookOptions, SingleStageQuantizer, codeword_dim, sum_in_order, sum_of_first
from depthq.quantizers.straight_through import pass_gradient


class SharedQuantizer(SingleStageQuantizer):
    """Gives the same D-dimensional vector to all M codebooks and joins their codewords (Fig. 2, middle).

    With M = 1 it is a plain vector quantizer, and identical to `DepthwiseQuantizer`.

    Args:
        dim: D, the size of `axis` and of every codeword.
        num_codebooks: M.
        codebook_size: K, an int or one per codebook; at least 1.
        codebook_dim: Of the codewords, by default and at most `dim`. If smaller, linear layers lead from `dim` there
            and back to `dim` (`project_in`, `project_out`).
        combine: "concat" gives M * D on `axis`, "sum" gives D; each codebook passes its gradient to the one vector.
            Behind a projection both give `dim`.
        options: The others are those of `CodebookOptions`.

    Raises:
        ValueError: If a size or an option is out of range, or `combine` is unknown.
        TypeError: If there is no such option.
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int | Sequence[int],
        *,
        codebook_dim: int | None = None,
        combine: Literal["concat", "sum"] = "concat",
        **options: Unpack[CodebookOptions],
    ):
        dim, num_codebooks = as_size("dim", dim), as_size("num_codebooks", num_codebooks)
        if combine not in ("concat", "sum"):
            raise ValueError(f"combine must be 'concat' or 'sum'; got {combine!r}")
        inner = codeword_dim(dim, codebook_dim)
        out = inner * num_codebooks if combine == "concat" else inner
        projected = (inner, out) if inner < dim else None
        out_dim = dim if projected else out
        super().__init__(dim, out_dim, codebook_size, (inner,) * num_codebooks, projected=projected, **options)
        self.combine = combine

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, combine={self.combine!r}"

    def _keep(self, quantized, codes, num_kept):
        if self.combine == "concat":
            return keep_columns(quantized, self.state.codebook_dims, num_kept)
        codewords = self.state.lookup(codes, slice(codes.shape[1]))
        return pass_gradient(quantized, sum_of_first(codewords, num_kept))

    def _slots(self, rows):
        return rows.unsqueeze(1).expand(-1, self.num_codebooks, -1)

    def _join(self, slots):
        if self.combine == "concat":
            return slots.flatten(1)
        return sum_in_order(slots)
