"""No quantizer, as one: for an auto-encoder without its bottleneck."""

from torch import Tensor

from depthq.quantizers.base import Quantizer, as_size
from depthq.quantizers.output import QuantizedRows
from depthq.quantizers.processes import GlobalRows


class NoQuantizer(Quantizer):
    """Passes latents through: the limit for any quantizer. It has no codebooks, hence codes (B, 0, *positions).

    Args:
        dim: Size of `axis`.
        axis: The axis that holds the vector; any but the batch's (0).

    Raises:
        ValueError: If `dim` or `axis` is out of range.
    """

    def __init__(self, dim: int, *, axis: int = 1):
        dim = as_size("dim", dim)
        super().__init__(dim, dim, (), axis=axis, check_finite=False)

    def _quantize(self, rows: Tensor, global_rows: GlobalRows | None) -> QuantizedRows:
        no_loss = rows.new_zeros(())
        return QuantizedRows(rows, self._search(rows), no_loss, no_loss, no_loss)

    def _search(self, rows: Tensor) -> Tensor:
        return rows.new_empty((len(rows), 0)).long()

    def _lookup(self, codes: Tensor) -> Tensor:
        raise ValueError("quantizer must have codebooks to decode; got NoQuantizer, whose latents are in no codes")
