"""The paper's baseline "VQ": one vector, seen by all M codebooks."""

from collections.abc import Sequence
from typing import Literal

from depthq.quantizers.base import SingleStageQuantizer, as_size, make_state, sum_in_order
from depthq.quantizers.codebooks import CodebookUpdate


class SharedQuantizer(SingleStageQuantizer):
    """Gives the same D-dimensional vector to all M codebooks and joins their codewords (Fig. 2, middle).

    With M = 1 it is a plain vector quantizer, and identical to `DepthwiseQuantizer`.

    Args:
        dim: D, the size of `axis` and of every codeword.
        num_codebooks: M.
        codebook_size: K, an int or one per codebook; at least 1.
        combine: "concat" gives M * D on `axis`, "sum" gives D; each codebook passes its gradient to the one vector.
        axis: The axis that holds the vector; any but the batch's (0).
        commitment_weight: beta of Eq. 5, at least 0.
        codebook_update: "ema" (App. A.4), or "gradient" for the second term of Eq. 5.
        decay: EMA decay.
        epsilon: Laplace smoothing of the EMA counts.
        rare_code_threshold: Codes used less than this share of the mean are re-drawn from the batch (Sec. 4.2).
        check_finite: Refuse NaN and infinity in training.
        backend: Of the search, as in `depthq.ops.nearest_code`; None takes the fastest that runs.

    Raises:
        ValueError: If a size is out of range or `combine` is unknown.
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int | Sequence[int],
        *,
        combine: Literal["concat", "sum"] = "concat",
        axis: int = 1,
        commitment_weight: float = 0.25,
        codebook_update: CodebookUpdate = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-5,
        rare_code_threshold: float = 0.1,
        check_finite: bool = True,
        backend: str | None = None,
    ):
        dim, num_codebooks = as_size("dim", dim), as_size("num_codebooks", num_codebooks)
        if combine not in ("concat", "sum"):
            raise ValueError(f"combine must be 'concat' or 'sum'; got {combine!r}")
        out_dim = dim * num_codebooks if combine == "concat" else dim
        state = make_state(
            num_codebooks,
            codebook_size,
            (dim,) * num_codebooks,
            codebook_update,
            decay,
            epsilon,
            rare_code_threshold,
            backend,
        )
        super().__init__(
            dim, out_dim, axis=axis, commitment_weight=commitment_weight, check_finite=check_finite, state=state
        )
        self.combine = combine

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, combine={self.combine!r}"

    def _slots(self, rows):
        return rows.unsqueeze(1).expand(-1, self.num_codebooks, -1)

    def _join(self, slots):
        if self.combine == "concat":
            return slots.flatten(1)
        return sum_in_order(slots)
