"""Depthwise quantization (Sec. 4): each slice of the feature axis has its own codebook."""

from collections.abc import Sequence

import torch
from torch import Tensor

from depthq.quantizers.base import SingleStageQuantizer, check_num_codebooks, make_state, per_codebook
from depthq.quantizers.codebooks import CodebookUpdate


class DepthwiseQuantizer(SingleStageQuantizer):
    """Cuts a feature tensor along one axis into M slices and quantizes each with its own codebook (Eq. 3-5).

    An axis that M does not divide is padded with zeros to M equal slices (512 -> 7 x 74 in Sec. 5.1), and the padding
    is removed on the way out; give `codebook_dim` as a sequence for slices of different width instead.

    Args:
        dim: Size C of the split axis.
        num_codebooks: M, the number of slices; at most `dim`.
        codebook_size: K, an int or one per codebook; at least 1.
        codebook_dim: D, an int or one per codebook; by default ceil(dim / M). An int may leave padding; the entries of
            a sequence must sum to `dim`.
        axis: The axis that is split; any but the batch's (0).
        commitment_weight: beta of Eq. 5.
        codebook_update: "ema" (App. A.4), or "gradient" for the second term of Eq. 5.
        decay: EMA decay.
        epsilon: Laplace smoothing of the EMA counts.
        rare_code_threshold: Codes used less than this share of the mean are re-drawn from the batch (Sec. 4.2).
        check_finite: Refuse NaN and infinity in training, at the price of one pass over the input (on a GPU also of
            one synchronisation).

    Raises:
        ValueError: If a size is out of range, or slices and `dim` do not fit.

    Example:
        >>> quantizer = DepthwiseQuantizer(dim=640, num_codebooks=10, codebook_size=512)
        >>> out = quantizer(torch.randn(4, 640, 8, 8))
        >>> out.quantized.shape, out.codes.shape
        (torch.Size([4, 640, 8, 8]), torch.Size([4, 10, 8, 8]))
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int | Sequence[int],
        *,
        codebook_dim: int | Sequence[int] | None = None,
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
        dims = _slice_dims(dim, num_codebooks, codebook_dim)
        self.dim = self.out_dim = dim
        self.axis = axis
        self.commitment_weight = commitment_weight
        self.check_finite = check_finite
        self.state = make_state(
            num_codebooks, codebook_size, dims, codebook_update, decay, epsilon, rare_code_threshold
        )
        width = max(dims)
        columns = [slot * width + column for slot, size in enumerate(dims) for column in range(size)][:dim]
        self.num_columns = num_codebooks * width
        self._columns: Tensor | None
        self.register_buffer("_columns", torch.tensor(columns) if self.num_columns != dim else None, persistent=False)

    def extra_repr(self) -> str:
        sizes, dims = self.codebook_sizes, self.state.codebook_dims
        size = sizes[0] if len(set(sizes)) == 1 else list(sizes)
        width = dims[0] if len(set(dims)) == 1 else list(dims)
        return f"dim={self.dim}, num_codebooks={self.num_codebooks}, codebook_size={size}, codebook_dim={width}"

    def _slots(self, rows: Tensor) -> Tensor:
        if self._columns is None:
            return rows
        return rows.new_zeros(len(rows), self.num_columns).index_copy(1, self._columns, rows)

    def _join(self, slots: Tensor) -> Tensor:
        return slots if self._columns is None else slots[:, self._columns]


def _slice_dims(dim: int, num_codebooks: int, codebook_dim: int | Sequence[int] | None) -> tuple[int, ...]:
    """Width of each slice; equal slices may overhang `dim` by zero padding, but none may be padding alone."""
    if codebook_dim is None:
        codebook_dim = -(-dim // num_codebooks)
    dims = per_codebook("codebook_dim", codebook_dim, num_codebooks)
    if isinstance(codebook_dim, int):
        if not (num_codebooks - 1) * codebook_dim < dim <= num_codebooks * codebook_dim:
            raise ValueError(
                f"dim must fill num_codebooks slices of codebook_dim, padding less than one slice; got dim={dim}, "
                f"num_codebooks={num_codebooks}, codebook_dim={codebook_dim}; use at most {dim} codebooks, or give "
                "codebook_dim as one width per codebook"
            )
    elif sum(dims) != dim:
        raise ValueError(f"codebook_dim must sum to dim={dim}; got {list(dims)} with sum {sum(dims)}")
    return dims
