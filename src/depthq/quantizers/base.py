"""The contract that all quantizers keep, and the way of a tensor through it."""

import contextlib
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Self, SupportsIndex

import torch
from torch import Tensor, nn

from depthq.codes import check_codes
from depthq.quantizers.health import CodebookHealth
from depthq.quantizers.kept_state import KeptState
from depthq.quantizers.output import QuantizedRows, QuantizerOutput
from depthq.quantizers.pretrained import PretrainedQuantizer
from depthq.quantizers.processes import GlobalRows


class NonFiniteLatentsError(ValueError):
    """Latents held NaN or infinity in training; no codebook was changed."""


class Quantizer(PretrainedQuantizer, ABC):
    """Turns a feature tensor into M codes per position and back.

    Shapes: B batch, C = `dim` on `axis`, N all positions of the batch together, M codebooks of K_m codewords.
    Subclasses say how a row (N, dim) becomes codes (N, M) and codes become a row (N, `out_dim`): `_quantize`, `_search`
    and `_lookup`. Ranks, axes, masks, autocast, checks and the finiteness of latents are dealt with here.

    Laws: `decode(out.codes)` is `out.quantized` bit for bit, in training as in eval, once it is rounded to the dtype of
    x, but for codebooks that `codebook_dropout` leaves out, and for the rounding of a projection behind the codebooks
    where `decode` gets another number of positions; ties go to the lowest code; all arithmetic is float32
    whatever autocast says; nothing changes in eval.

    Args:
        dim: Size of `axis` in the input.
        out_dim: Size of `axis` in the output.
        codebook_sizes: K_m of each of the M codebooks.
        axis: The axis that holds the vector; any but the batch's (0).
        commitment_weight: beta of Eq. 5, finite and at least 0.
        check_finite: Refuse NaN and infinity in training, at the price of one pass over the input (on a GPU also of one
            synchronisation).
        codebook_dropout: Share, in [0, 1), of a training step's entries of the batch that are quantized by their first
            m codebooks alone, m uniform in 1..M-1: so that every prefix of the codes comes to mean something. The rest
            counts as zero; all codebooks search and learn as ever, since the codes are those of all.

    Raises:
        ValueError: If `axis`, `commitment_weight` or `codebook_dropout` is out of range.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        codebook_sizes: Sequence[int],
        *,
        axis: int = 1,
        commitment_weight: float = 0.0,
        check_finite: bool = True,
        codebook_dropout: float = 0.0,
    ):
        super().__init__()
        self.axis = as_int("axis", axis)
        if self.axis == 0:
            raise ValueError("axis must not be 0, which is the batch's; got 0")
        commitment_weight = as_number("commitment_weight", commitment_weight)
        if not 0 <= commitment_weight < math.inf:
            raise ValueError(f"commitment_weight must be finite and at least 0; got {commitment_weight}")
        self.dim, self.out_dim = dim, out_dim
        self.codebook_sizes = tuple(codebook_sizes)
        self.commitment_weight = commitment_weight
        self.check_finite = check_finite
        self.codebook_dropout = check_share("codebook_dropout", codebook_dropout)

    if TYPE_CHECKING:  # nn.Module's returns Any

        def __call__(self, x: Tensor, mask: Tensor | None = None) -> QuantizerOutput: ...

    @property
    def num_codebooks(self) -> int:
        """M."""
        return len(self.codebook_sizes)

    @property
    def has_prefixes(self) -> bool:
        """Whether codes decode from the first codebooks alone."""
        return type(self)._keep is not Quantizer._keep

    def forward(self, x: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """Quantize, and in training learn, where there is something to learn.

        Args:
            x: Floating-point latents of any rank >= 2, batch first, `dim` on `axis`; computed with in float32.
            mask: bool (B, *positions), True where valid; None means everywhere. Masked positions get code -1 and
                quantized 0, pass no gradient and enter no statistics.

        Raises:
            ValueError: If x or mask has the wrong shape or dtype.
            NonFiniteLatentsError: In training, if x is not finite; no state has changed then.
        """
        self._check_input(x)
        with torch.autocast(x.device.type, enabled=False):
            rows = self._enter(self._rows(x, mask))
            global_rows = self._begin_step(rows) if self.training else None
            found = self._quantize(rows, global_rows)
            quantized = found.quantized
            if self.training and self.codebook_dropout:
                num_kept = draw_num_kept(len(x), self.num_codebooks, self.codebook_dropout).to(x.device)
                quantized = self._keep(quantized, found.codes, self._rows_of(num_kept, x, mask))
            quantized = self._leave(quantized)
        return QuantizerOutput(
            quantized=self._positions(quantized, x, mask, fill=0.0).movedim(-1, self.axis).to(x.dtype),
            codes=self._positions(found.codes, x, mask, fill=-1).movedim(-1, 1),
            commitment_loss=found.commitment_loss,
            codebook_loss=found.codebook_loss,
            entropy_loss=found.entropy_loss,
            loss=found.codebook_loss + self.commitment_weight * found.commitment_loss + found.entropy_loss,
            codebook_sizes=self.codebook_sizes[: found.codes.shape[1]],
        )

    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Codes, int64 (B, M, *positions), of x; arguments and errors as `forward`, but nothing is learned."""
        self._check_input(x)
        with torch.autocast(x.device.type, enabled=False):
            codes = self._search(self._enter(self._rows(x, mask)))
        return self._positions(codes, x, mask, fill=-1).movedim(-1, 1)

    def decode(self, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """The quantized tensor, float32, of codes int64 (B, M, *positions).

        Args:
            codes: Codes of codebook m in [0, K_m). A prefix of the codebooks will do, `codes[:, :m]`: the others count
                as zero.
            mask: bool (B, *positions), True where valid, if codes were made with one: masked positions decode to 0.

        Raises:
            ValueError: If codes are out of range, of the wrong dtype, or of no or too many codebooks; or the mask
                does not fit them. A compiled or exported graph checks no ranges.
        """
        if mask is not None:
            _check_mask(mask, (*codes.shape[:1], *codes.shape[2:]))
            codes = codes.where(mask.unsqueeze(1), 0)
        self._check_codes(codes)
        codes = codes.movedim(1, -1)  # (B, *positions, M or fewer)
        with torch.autocast(codes.device.type, enabled=False):
            rows = self._leave(self._lookup_prefix(codes.flatten(0, -2)))  # (N, out_dim)
        quantized = rows.unflatten(0, codes.shape[:-1])
        if mask is not None:
            quantized = quantized.where(mask.unsqueeze(-1), 0)
        return quantized.movedim(-1, self.axis)

    def keep(self, quantized: Tensor, codes: Tensor, num_kept: Tensor) -> Tensor:
        """What the first codebooks of each entry of a batch say: `quantized`, with its gradient, where they are all.

        It has the dtype of `quantized`, as the whole has.

        Args:
            quantized: (B, ..), as `forward` gave it without a mask.
            codes: int64 (B, M, *positions), those of `quantized`.
            num_kept: int64 (B,), in 1..M.
        """
        last = quantized.movedim(self.axis, -1)  # (B, *positions, out_dim)
        rows = self._rows_of(num_kept, quantized, None)
        kept = self._keep(last.flatten(0, -2), codes.movedim(1, -1).flatten(0, -2), rows)
        return kept.unflatten(0, last.shape[:-1]).movedim(-1, self.axis).to(quantized.dtype)

    def freeze(self) -> Self:
        """Learn and count nothing any more, in training too: codewords stay as they are, and take no gradient.

        Gradients still pass straight through to the latents, and the commitment loss is there. It outlasts `train()`,
        a parent's `requires_grad_`, copies, and a state_dict, where it travels along.
        """
        self._freezing_state().is_frozen = True
        return self

    def unfreeze(self) -> Self:
        """Learn again in training, from where the codebooks stand."""
        self._freezing_state().is_frozen = False
        return self

    @property
    def is_frozen(self) -> bool:
        """Whether `freeze` holds."""
        state = getattr(self, "state", None)
        return isinstance(state, KeptState) and state.is_frozen

    def _freezing_state(self) -> KeptState:
        state = getattr(self, "state", None)
        if not isinstance(state, KeptState):
            raise ValueError(f"the quantizer must have a state to be frozen; got {type(self).__name__}, which has none")
        return state

    def health(self) -> CodebookHealth | None:
        """How the codebooks have been used of late in training; None of a quantizer that does not keep count."""
        return None

    def extra_repr(self) -> str:
        size = one_or_all(self.codebook_sizes)
        return f"dim={self.dim}, num_codebooks={self.num_codebooks}, codebook_size={size}"

    def _enter(self, rows: Tensor) -> Tensor:
        """Rows as the codebooks see them; where they do not see `dim` entries, it says what they see."""
        return rows

    def _leave(self, quantized: Tensor) -> Tensor:
        """What the codebooks made of rows, as it goes out: (N, out_dim)."""
        return quantized

    @abstractmethod
    def _quantize(self, rows: Tensor, global_rows: GlobalRows | None) -> QuantizedRows:
        """Quantize rows, float32 (N, dim), with gradient.

        `global_rows` is given in training: the rows of all processes, for those that keep statistics or learn; the
        state of one that is frozen does neither.
        """

    @abstractmethod
    def _search(self, rows: Tensor) -> Tensor:
        """Codes (N, M) of rows (N, dim)."""

    @abstractmethod
    def _lookup(self, codes: Tensor) -> Tensor:
        """Quantized rows (N, out_dim) of codes (N, M)."""

    def _keep(self, quantized: Tensor, codes: Tensor, num_kept: Tensor) -> Tensor:
        """What the first `num_kept` (N,) codebooks of each row say, the others counting as zero.

        `quantized` (N, out_dim) is what all `codes` (N, M) say; its gradient stays where its codebooks do.
        """
        raise ValueError(
            f"codes must be of all {self.num_codebooks} codebooks for a {type(self).__name__}, which has no prefixes; "
            "write its _keep"
        )

    def _lookup_prefix(self, codes: Tensor) -> Tensor:
        """`_lookup` of the codes of the first codebooks, (N, M) or fewer columns."""
        num_missing = self.num_codebooks - codes.shape[1]
        quantized = self._lookup(nn.functional.pad(codes, (0, num_missing)))
        if not num_missing:
            return quantized
        return self._keep(quantized, codes, codes.new_full((len(codes),), codes.shape[1]))

    def _check_codes(self, codes: Tensor) -> None:
        if codes.dim() < 2 or not min(self.num_codebooks, 1) <= codes.shape[1] <= self.num_codebooks:
            raise ValueError(
                f"codes must be (B, M, ...) with M from 1 to {self.num_codebooks} codebooks on axis 1; "
                f"got shape {tuple(codes.shape)}"
            )
        if not torch.compiler.is_compiling():
            check_codes(codes, self.codebook_sizes[: codes.shape[1]])

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise ValueError(f"x must be a tensor; got {type(x).__name__}; convert with torch.as_tensor")
        if not x.is_floating_point():
            raise ValueError(f"x must be floating point; got {x.dtype}; convert to float32")
        if x.dim() < 2 or not -x.dim() <= self.axis < x.dim() or self.axis % x.dim() == 0:
            raise ValueError(
                f"x must be batch first with the split axis {self.axis} behind it; got shape {tuple(x.shape)}"
            )
        if x.shape[self.axis] != self.dim:
            raise ValueError(
                f"dim must be the size of axis {self.axis}; got dim={self.dim} and x of shape {tuple(x.shape)}; "
                "pass dim or axis to fit x"
            )

    def _rows(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (.., dim on axis, ..) as float32 rows (N, dim), the masked ones left out."""
        rows = x.float().movedim(self.axis, -1)  # (B, *positions, dim)
        if mask is None:
            return rows.flatten(0, -2)
        _check_mask(mask, rows.shape[:-1])
        return rows[mask]

    def _rows_of(self, per_entry: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """One value per entry of the batch (B,), repeated for its rows: (N,)."""
        shape = x.movedim(self.axis, -1).shape[:-1]
        everywhere = per_entry.view(-1, *[1] * (len(shape) - 1)).expand(shape)
        return everywhere.flatten() if mask is None else everywhere[mask]

    def _positions(self, rows: Tensor, x: Tensor, mask: Tensor | None, fill: float) -> Tensor:
        """Rows (N, width) back at their positions (B, *positions, width), with `fill` where masked."""
        shape = x.movedim(self.axis, -1).shape[:-1]
        if mask is None:
            return rows.unflatten(0, shape)
        full = rows.new_full((*shape, rows.shape[-1]), fill)
        return full.masked_scatter(mask.unsqueeze(-1), rows)

    def _begin_step(self, rows: Tensor) -> GlobalRows | None:
        """This step's rows over all processes; None if there are none at all, and then nothing is learned."""
        finite = not self.check_finite or _is_finite(rows)
        global_rows = GlobalRows(len(rows), finite, rows.device)
        if not global_rows.all_finite:
            raise NonFiniteLatentsError(
                "x must be finite in training; got NaN or infinity (no codebook was changed); "
                "lower the learning rate, clip gradients, or look at the layer before the quantizer"
            )
        return global_rows if global_rows.total else None


def draw_num_kept(batch: int, most: int, dropout: float) -> Tensor:
    """How many of `most` parts each entry of a batch keeps: int64 (B,), fewer than all for a share `dropout` of them.

    From the CPU's generator, whatever the device, so that the same seed draws the same on all of them.
    """
    fewer = torch.randint(1, max(most, 2), (batch,), device="cpu")
    return torch.where(torch.rand(batch, dtype=torch.float32, device="cpu") < dropout, fewer, most)


def keep_columns(quantized: Tensor, widths: Sequence[int], num_kept: Tensor) -> Tensor:
    """Rows (N, out_dim), in which codebook m has `widths[m]` columns, with zero where `num_kept` (N,) is at most m."""
    codebook = torch.repeat_interleave(torch.tensor(widths, device=quantized.device))  # of each column
    return torch.where(codebook < num_kept[:, None], quantized, 0.0)


def check_share(name: str, value: float) -> float:
    """`as_number` of one that lies in [0, 1)."""
    share = as_number(name, value)
    if not 0 <= share < 1:
        raise ValueError(f"{name} must lie in [0, 1); got {share}")
    return share


def one_or_all(values: Sequence[int]) -> int | list[int]:
    """The one value that all agree on, else all of them."""
    return values[0] if len(set(values)) == 1 else list(values)


def as_number(name: str, value: float) -> float:
    """A real number of any kind, of NumPy or PyTorch too, as int or float; ValueError for all else, and for bool."""
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number; got {value!r}")
    return value if isinstance(value, int) else float(value)


def as_int(name: str, value: SupportsIndex) -> int:
    """A whole number of any kind, NumPy's as well, as int; ValueError for all else, and for truth values."""
    if not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            return operator.index(value)
    raise ValueError(f"{name} must be an integer; got {value!r}")


def as_size(name: str, value: SupportsIndex) -> int:
    """`as_int` of a number that is at least 1."""
    size = as_int(name, value)
    if size < 1:
        raise ValueError(f"{name} must be at least 1; got {size}")
    return size


def _check_mask(mask: Tensor, shape: Sequence[int]) -> None:
    if mask.dtype != torch.bool or mask.shape != tuple(shape):
        raise ValueError(
            f"mask must be bool of shape {tuple(shape)}, one entry per position; "
            f"got {mask.dtype} of shape {tuple(mask.shape)}; True marks valid positions"
        )


def _is_finite(rows: Tensor) -> bool:
    """One cheap pass: a finite sum means finite rows; only an overflowing sum needs the second look."""
    return bool(rows.detach().sum().isfinite()) or bool(rows.detach().isfinite().all())
