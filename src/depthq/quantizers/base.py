"""The contract that all quantizers keep, and the way of a tensor through it."""

import contextlib
import math
import operator
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self, SupportsIndex

import torch
from torch import Tensor, nn

from depthq.codes import check_codes
from depthq.quantizers.codebooks import CodebookState, CodebookUpdate
from depthq.quantizers.fitting import Features, fit
from depthq.quantizers.health import CodebookHealth
from depthq.quantizers.output import QuantizerOutput
from depthq.quantizers.processes import GlobalRows
from depthq.quantizers.straight_through import straight_through


class NonFiniteLatentsError(ValueError):
    """Latents held NaN or infinity in training; no codebook was changed."""


class Quantizer(nn.Module):
    """Turns a feature tensor into M codes per position and back.

    Shapes: B batch, C = `dim` on `axis`, N all positions of the batch together, M codebooks of K_m codewords of D_m
    dimensions. Subclasses say how a row (N, dim) becomes codes (N, M) and codes become a row (N, `out_dim`).

    Laws: `decode(out.codes)` is `out.quantized` bit for bit, in training as in eval, once it is rounded to the dtype of
    x; ties go to the lowest code; all arithmetic is float32 whatever autocast says; nothing changes in eval.

    A training step moves the codebooks, so keep the quantizer outside checkpointed regions
    (`torch.utils.checkpoint`): run twice per step, it would learn twice, and may give other codes the second time.
    With codebooks learned by gradient, a re-drawn codeword keeps the optimizer's moments (Adam's) of the one before.
    A codebook with copies of codewords is searched slowly; see `depthq.ops.nearest_code`.
    """

    axis: int
    dim: int
    out_dim: int
    commitment_weight: float
    check_finite: bool
    state: CodebookState

    def __init__(
        self, dim: int, out_dim: int, *, axis: int, commitment_weight: float, check_finite: bool, state: CodebookState
    ):
        super().__init__()
        self.axis = as_int("axis", axis)
        if self.axis == 0:
            raise ValueError("axis must not be 0, which is the batch's; got 0")
        if not 0 <= commitment_weight < math.inf:
            raise ValueError(f"commitment_weight must be finite and at least 0; got {commitment_weight}")
        self.dim, self.out_dim = dim, out_dim
        self.commitment_weight = commitment_weight
        self.check_finite = check_finite
        self.state = state

    if TYPE_CHECKING:  # nn.Module's returns Any

        def __call__(self, x: Tensor, mask: Tensor | None = None) -> QuantizerOutput: ...

    @property
    def codebooks(self) -> Tensor | list[Tensor]:
        """(M, K, D), or a list of (K_m, D_m) where sizes differ."""
        return self.state.codewords

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """K_m of each codebook."""
        return self.state.codebook_sizes

    @property
    def num_codebooks(self) -> int:
        """M."""
        return len(self.codebook_sizes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """Quantize, and in training move the codebooks.

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
            rows = self._rows(x, mask)
            global_rows = self._begin_step(rows) if self.training else None
            quantized_rows, codes, commitment_loss, codebook_loss = self._quantize(rows, global_rows)
        return QuantizerOutput(
            quantized=self._positions(quantized_rows, x, mask, fill=0.0).movedim(-1, self.axis).to(x.dtype),
            codes=self._positions(codes, x, mask, fill=-1).movedim(-1, 1),
            commitment_loss=commitment_loss,
            codebook_loss=codebook_loss,
            loss=codebook_loss + self.commitment_weight * commitment_loss,
            codebook_sizes=self.codebook_sizes[: codes.shape[1]],
        )

    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Codes, int64 (B, M, *positions), of x; arguments and errors as `forward`, but nothing is learned."""
        self._check_input(x)
        with torch.autocast(x.device.type, enabled=False):
            codes = self._search(self._rows(x, mask))
        return self._positions(codes, x, mask, fill=-1).movedim(-1, 1)

    def decode(self, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """The quantized tensor, float32, of codes int64 (B, M, *positions).

        Args:
            codes: Codes of codebook m in [0, K_m).
            mask: bool (B, *positions), True where valid, if codes were made with one: masked positions decode to 0.

        Raises:
            ValueError: If codes are out of range, of the wrong dtype, or of another number of codebooks; or the mask
                does not fit them. A compiled or exported graph checks no ranges.
        """
        if mask is not None:
            _check_mask(mask, (*codes.shape[:1], *codes.shape[2:]))
            codes = codes.where(mask.unsqueeze(1), 0)
        self._check_codes(codes)
        codes = codes.movedim(1, -1)  # (B, *positions, M)
        quantized = self._lookup(codes.flatten(0, -2)).unflatten(0, codes.shape[:-1])  # (B, *positions, out_dim)
        if mask is not None:
            quantized = quantized.where(mask.unsqueeze(-1), 0)
        return quantized.movedim(-1, self.axis)

    def fit(
        self, features: Features, *, steps: int, batch_size: int = 8192, seed: int = 0, progress: bool = True
    ) -> Self:
        """Learn the codebooks from features alone, without a network: mini-batch k-means, started by k-means++.

        It starts anew whatever the codebooks were, and leaves the module in the mode it was in. See
        `depthq.quantizers.fitting.fit` for arguments and errors.

        Example:
            >>> quantizer = DepthwiseQuantizer(dim=128, num_codebooks=8, codebook_size=256)
            >>> codes = quantizer.fit(features, steps=500).encode(features)
        """
        fit(self, features, steps=steps, batch_size=batch_size, seed=seed, progress=progress)
        return self

    def health(self) -> CodebookHealth:
        """How the codebooks have been used of late; print it for a table. Computed when called."""
        return self.state.health()

    def extra_repr(self) -> str:
        size, width = one_or_all(self.codebook_sizes), one_or_all(self.state.codebook_dims)
        return f"dim={self.dim}, num_codebooks={self.num_codebooks}, codebook_size={size}, codebook_dim={width}"

    @abstractmethod
    def _quantize(self, rows: Tensor, global_rows: GlobalRows | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows (N, dim) to quantized rows (N, out_dim), codes (N, M), commitment loss, codebook loss.

        `global_rows` is given in training, when the codebooks are to move.
        """

    @abstractmethod
    def _search(self, rows: Tensor) -> Tensor:
        """Codes (N, M) of rows (N, dim)."""

    @abstractmethod
    def _lookup(self, codes: Tensor) -> Tensor:
        """Quantized rows (N, out_dim) of codes (N, M)."""

    def _mean_squared_error(self, x: Tensor, out: QuantizerOutput) -> Tensor:
        """Scalar: of the latents that the codebooks saw against their codewords; what `fit` shows."""
        return out.commitment_loss / self.num_codebooks

    def _check_codes(self, codes: Tensor) -> None:
        if not torch.compiler.is_compiling():
            check_codes(codes, self.codebook_sizes)

    def _check_input(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise ValueError(f"x must be floating point; got {x.dtype}; convert with .float()")
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
        if not global_rows.total:
            return None
        self.state.begin_step()
        return global_rows


class SingleStageQuantizer(Quantizer):
    """A quantizer whose M codebooks search side by side: each row becomes M latents, each with its own codebook."""

    @abstractmethod
    def _slots(self, rows: Tensor) -> Tensor:
        """Rows (N, dim) to latents (N, M, D), one slot per codebook, zero-padded."""

    @abstractmethod
    def _join(self, slots: Tensor) -> Tensor:
        """Quantized slots (N, M, D) to (N, out_dim)."""

    def _quantize(self, rows, global_rows):
        slots = self._slots(rows)
        latents = slots.detach().transpose(0, 1)  # (M, N, D), a view
        if global_rows is not None:
            self.state.refresh(latents, global_rows)
        codes = self.state.search(latents)  # (M, N)
        if global_rows is not None:
            self.state.accumulate(latents, codes, global_rows)
        codewords = self.state.lookup(codes.t())  # (N, M, D)
        quantized, commitment_loss, codebook_loss = straight_through(slots, codewords, self.state.codebook_dims)
        return self._join(quantized), codes.t(), commitment_loss, codebook_loss

    def _search(self, rows):
        return self.state.search(self._slots(rows).transpose(0, 1)).t()

    def _lookup(self, codes):
        return self._join(self.state.lookup(codes))


def sum_in_order(codewords: Tensor) -> Tensor:
    """(N, M, D) to (N, D), one codebook after the other: a reduction's order, hence its bits, may depend on N."""
    total = torch.zeros_like(codewords[:, 0])
    for codeword in codewords.unbind(1):
        total = total + codeword
    return total


def per_codebook(name: str, value: int | Sequence[int], num_codebooks: int) -> tuple[int, ...]:
    """`value` once per codebook: an int is repeated, a sequence must have one entry per codebook."""
    values = tuple(value) if isinstance(value, Iterable) else (value,) * num_codebooks
    if len(values) != num_codebooks:
        raise ValueError(f"{name} must be an int or have one entry for each of {num_codebooks} codebooks; got {value}")
    return tuple(as_size(name, entry) for entry in values)


def one_or_all(values: Sequence[int]) -> int | list[int]:
    """The one value that all agree on, else all of them."""
    return values[0] if len(set(values)) == 1 else list(values)


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


def make_state(
    num_codebooks: int,
    codebook_size: int | Sequence[int],
    codebook_dims: Sequence[int],
    codebook_update: CodebookUpdate,
    decay: float,
    epsilon: float,
    rare_code_threshold: float,
    backend: str | None,
) -> CodebookState:
    return CodebookState(
        per_codebook("codebook_size", codebook_size, num_codebooks),
        codebook_dims,
        update=codebook_update,
        decay=decay,
        epsilon=epsilon,
        rare_code_threshold=rare_code_threshold,
        backend=backend,
    )


def _check_mask(mask: Tensor, shape: Sequence[int]) -> None:
    if mask.dtype != torch.bool or mask.shape != tuple(shape):
        raise ValueError(
            f"mask must be bool of shape {tuple(shape)}, one entry per position; "
            f"got {mask.dtype} of shape {tuple(mask.shape)}; True marks valid positions"
        )


def _is_finite(rows: Tensor) -> bool:
    """One cheap pass: a finite sum means finite rows; only an overflowing sum needs the second look."""
    return bool(rows.detach().sum().isfinite()) or bool(rows.detach().isfinite().all())
