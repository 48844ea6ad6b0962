"""Quantizers with learned codebooks: what depthwise, shared and residual ones have in common."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Self, TypedDict

import torch
from torch import Tensor

from depthq.quantizers.base import Quantizer, as_size, one_or_all
from depthq.quantizers.code_entropy import check_entropy_options, code_entropy_loss
from depthq.quantizers.codebooks import ALL, CodebookState, CodebookUpdate
from depthq.quantizers.fitting import Features, fit
from depthq.quantizers.health import CodebookHealth
from depthq.quantizers.kept_state import Float32Linear
from depthq.quantizers.output import QuantizedRows, QuantizerOutput
from depthq.quantizers.processes import GlobalRows
from depthq.quantizers.sphere import Distance, on_sphere
from depthq.quantizers.straight_through import rotate, straight_through


class CodebookOptions(TypedDict, total=False):
    """What every quantizer with learned codebooks takes by keyword; the defaults stand in `LearnedQuantizer`."""

    axis: int
    """The axis that holds the vector; any but the batch's (0)."""
    commitment_weight: float
    """beta of Eq. 5, finite and at least 0."""
    codebook_update: CodebookUpdate
    """"ema" (App. A.4), or "gradient" for the second term of Eq. 5."""
    decay: float
    """EMA decay (gamma of App. A.4), in [0, 1)."""
    epsilon: float
    """Laplace smoothing of the EMA counts (App. A.4), positive."""
    rare_code_threshold: float
    """Codes used at most this share of their codebook's mean are re-drawn from the batch (Sec. 4.2); in [0, 1)."""
    distance: Distance
    """"euclidean"; or "cosine": latents and codewords on the unit sphere, so that directions alone count. A latent of
    length 0, which has none, gets the code that ties go to, the lowest."""
    rotation_trick: bool
    """Whether the gradient reaches the latents through the rotation and scaling that takes each to its codeword (Fifty
    et al. 2024), not straight through."""
    entropy_weight: float
    """Of (mean entropy of a vector's code - entropy of the batch's mean), nats, summed over codebooks, which keeps
    codes certain and evenly used; finite and at least 0. It costs about as much as three searches."""
    inverse_temperature: float
    """t of that entropy's softmax(-t |latent - codeword|^2), positive."""
    codebook_dropout: float
    """Share, in [0, 1), of a training step's entries of the batch that are quantized by their first codebooks alone."""
    check_finite: bool
    """Refuse NaN and infinity in training, at the price of one pass over the input (on a GPU also of one
    synchronisation)."""
    backend: str | None
    """Of the search, as in `depthq.ops.nearest_code`; None takes the fastest that runs."""


class LearnedQuantizer(Quantizer):
    """A quantizer that searches codebooks and learns them.

    Shapes: as `Quantizer`; codewords of codebook m have D_m dimensions.

    A training step moves the codebooks, so keep the quantizer outside checkpointed regions
    (`torch.utils.checkpoint`): run twice per step, it would learn twice, and may give other codes the second time.
    With codebooks learned by gradient, a re-drawn codeword keeps the optimizer's moments (Adam's) of the one before.
    A codebook with copies of codewords is searched slowly; see `depthq.ops.nearest_code`.

    Args:
        dim: Size of `axis` in the input.
        out_dim: Size of `axis` in the output.
        codebook_size: K, an int or one per codebook; at least 1.
        codebook_dims: D_m of each of the M codebooks, at least 1.
        projected: (entries in, entries out) of a row as the codebooks see it, where a linear layer on each side leads
            there from `dim` and back; None: they see the row itself, and give `out_dim` entries.
        options: The others are those of `CodebookOptions`.

    Raises:
        ValueError: If a size or an option is out of range.
        TypeError: If there is no such option.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        codebook_size: int | Sequence[int],
        codebook_dims: Sequence[int],
        *,
        projected: tuple[int, int] | None = None,
        axis: int = 1,
        commitment_weight: float = 0.25,
        codebook_update: CodebookUpdate = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-5,
        rare_code_threshold: float = 0.1,
        distance: Distance = "euclidean",
        rotation_trick: bool = False,
        entropy_weight: float = 0.0,
        inverse_temperature: float = 1.0,
        codebook_dropout: float = 0.0,
        check_finite: bool = True,
        backend: str | None = None,
    ):
        if distance not in ("euclidean", "cosine"):
            raise ValueError(f"distance must be 'euclidean' or 'cosine'; got {distance!r}")
        if distance == "cosine" and min(codebook_dims) == 1:
            raise ValueError(
                "codebook_dim must be at least 2 for distance='cosine', as one number of length 1 passes no gradient; "
                "got 1; take distance='euclidean', or wider codewords"
            )
        entropy_weight, inverse_temperature = check_entropy_options(entropy_weight, inverse_temperature)
        state = CodebookState(
            per_codebook("codebook_size", codebook_size, len(codebook_dims)),
            codebook_dims,
            update=codebook_update,
            decay=decay,
            epsilon=epsilon,
            rare_code_threshold=rare_code_threshold,
            backend=backend,
            is_cosine=distance == "cosine",
        )
        super().__init__(
            dim,
            out_dim,
            state.codebook_sizes,
            axis=axis,
            commitment_weight=commitment_weight,
            check_finite=check_finite,
            codebook_dropout=codebook_dropout,
        )
        self.state = state
        self.project_in = Float32Linear(dim, projected[0]) if projected else None
        self.project_out = Float32Linear(projected[1], out_dim) if projected else None
        self.rotation_trick = bool(rotation_trick)
        self.entropy_weight = entropy_weight
        self.inverse_temperature = inverse_temperature

    @property
    def distance(self) -> Distance:
        """What nearest means."""
        return "cosine" if self.state.is_cosine else "euclidean"

    def _enter(self, rows: Tensor) -> Tensor:
        return rows if self.project_in is None else self.project_in(rows)

    def _leave(self, quantized: Tensor) -> Tensor:
        return quantized if self.project_out is None else self.project_out(quantized)

    def keep(self, quantized: Tensor, codes: Tensor, num_kept: Tensor) -> Tensor:
        if self.project_out is not None:
            raise ValueError(
                "codebook_dim must be the slice's width for keep, which takes codebooks off what came out; got a "
                "projection behind them; use codebook_dropout"
            )
        return super().keep(quantized, codes, num_kept)

    def _directed(self, latents: Tensor) -> Tensor:
        """Latents (..., D) as they are compared with codewords."""
        return on_sphere(latents) if self.state.is_cosine else latents

    def _entropy_loss(self, latents: Tensor, global_rows: GlobalRows | None, which: slice = ALL) -> Tensor:
        """Weighted, of latents (M, N, D) with gradient, as they are compared with the codewords of `which`."""
        if not self.entropy_weight:
            return latents.new_zeros(())
        # A copy, since later stages of a residual quantizer move their codewords before the gradient comes back.
        codewords, sizes = self.state.searched(which).clone(), self.state.codebook_sizes[which]
        return self.entropy_weight * code_entropy_loss(latents, codewords, sizes, self.inverse_temperature, global_rows)

    @property
    def codebooks(self) -> Tensor | list[Tensor]:
        """(M, K, D), or a list of (K_m, D_m) where sizes differ."""
        return self.state.codewords

    @classmethod
    def from_codebooks(cls, codebooks: Tensor | Sequence[Tensor], **options: Any) -> Self:
        """A quantizer with codebooks that were learned elsewhere: nothing is re-drawn by the first training step.

        Args:
            codebooks: (M, K, D), or a list of (K_m, D_m) where sizes differ; floating point, finite.
            options: As for the class, but `dim`, `num_codebooks`, `codebook_size` and `codebook_dim`, which follow.

        Raises:
            ValueError: If the codebooks are of another rank, empty, not finite, or of dimensions that the class cannot
                have.

        Example:
            >>> DepthwiseQuantizer.from_codebooks(torch.randn(4, 256, 16)).dim
            64
        """
        books = [torch.as_tensor(codebook).detach().float() for codebook in codebooks]
        if not books or any(book.dim() != 2 or not book.numel() for book in books):
            shapes = [tuple(book.shape) for book in books]
            raise ValueError(f"codebooks must be (M, K, D), or a list of (K_m, D_m), none of them 0; got {shapes}")
        if not all(book.isfinite().all() for book in books):
            raise ValueError("codebooks must be finite; got NaN or infinity; leave such codewords out")
        quantizer = cls(**cls._sizes_of([(len(book), book.shape[1]) for book in books]), **options)
        quantizer.state.give(books)
        return quantizer

    @classmethod
    def _sizes_of(cls, shapes: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """The arguments that follow from codebooks (K_m, D_m) that each see the whole of the axis."""
        dims = {dim for _, dim in shapes}
        if len(dims) != 1:
            raise ValueError(f"codebooks must have one dimension for a {cls.__name__}; got {sorted(dims)}")
        return {"dim": dims.pop(), "num_codebooks": len(shapes), "codebook_size": [size for size, _ in shapes]}

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
        cosine = ", distance='cosine'" if self.state.is_cosine else ""
        return f"{super().extra_repr()}, codebook_dim={one_or_all(self.state.codebook_dims)}{cosine}"

    def _learn(self, x: Tensor) -> None:
        """A training step of the codebooks alone, without what a network wants besides."""
        self(x)

    def _mean_squared_error(self, x: Tensor, out: QuantizerOutput) -> Tensor:
        """Scalar: of the latents that the codebooks saw against their codewords; what `fit` shows."""
        return out.commitment_loss / self.num_codebooks


class SingleStageQuantizer(LearnedQuantizer):
    """A quantizer whose M codebooks search side by side: each row becomes M latents, each with its own codebook."""

    @abstractmethod
    def _slots(self, rows: Tensor) -> Tensor:
        """Rows (N, dim) to latents (N, M, D), one slot per codebook, zero-padded."""

    @abstractmethod
    def _join(self, slots: Tensor) -> Tensor:
        """Quantized slots (N, M, D) to (N, out_dim)."""

    def _quantize(self, rows: Tensor, global_rows: GlobalRows | None) -> QuantizedRows:
        slots = self._directed(self._slots(rows))
        codes = self._step(slots.detach().transpose(0, 1), global_rows)  # (M, N)
        codewords = self.state.lookup(codes.t())  # (N, M, D)
        quantized, commitment_loss, codebook_loss = straight_through(slots, codewords, self.state.codebook_dims)
        if self.rotation_trick:
            quantized = rotate(slots, codewords.detach())
        entropy_loss = self._entropy_loss(slots.transpose(0, 1), global_rows)
        return QuantizedRows(self._join(quantized), codes.t(), commitment_loss, codebook_loss, entropy_loss)

    def _learn(self, x: Tensor) -> None:
        self._check_input(x)
        with torch.autocast(x.device.type, enabled=False):
            rows = self._enter(self._rows(x, None))
            self._step(self._directed(self._slots(rows)).transpose(0, 1), self._begin_step(rows))

    def _step(self, latents: Tensor, global_rows: GlobalRows | None) -> Tensor:
        """Codes (M, N) of latents (M, N, D), from which the codebooks learn where there are `global_rows`."""
        if global_rows is not None:
            self.state.begin_step()
            self.state.refresh(latents, global_rows)
        codes = self.state.search(latents)
        if global_rows is not None:
            self.state.accumulate(latents, codes, global_rows)
        return codes

    def _search(self, rows: Tensor) -> Tensor:
        return self.state.search(self._directed(self._slots(rows)).transpose(0, 1)).t()

    def _lookup(self, codes: Tensor) -> Tensor:
        return self._join(self.state.lookup(codes))


def sum_in_order(codewords: Tensor) -> Tensor:
    """(N, M, D) to (N, D), one codebook after the other: a reduction's order, hence its bits, may depend on N."""
    total = torch.zeros_like(codewords[:, 0])
    for codeword in codewords.unbind(1):
        total = total + codeword
    return total


def sum_of_first(codewords: Tensor, num_kept: Tensor) -> Tensor:
    """`sum_in_order` of the first `num_kept` (N,) codewords of each row."""
    is_kept = torch.arange(codewords.shape[1], device=codewords.device) < num_kept[:, None]
    return sum_in_order(codewords.where(is_kept[..., None], 0.0))


def codeword_dim(dim: int, codebook_dim: int | None) -> int:
    """Of codebooks that each see the whole row: `dim`, unless a smaller one is asked for."""
    if codebook_dim is None:
        return dim
    inner = as_size("codebook_dim", codebook_dim)
    if inner > dim:
        raise ValueError(f"codebook_dim must be at most dim={dim}; got {inner}")
    return inner


def per_codebook(name: str, value: int | Sequence[int], num_codebooks: int) -> tuple[int, ...]:
    """`value` once per codebook: an int is repeated, a sequence must have one entry per codebook."""
    plain: Any = value.tolist() if hasattr(value, "tolist") else value  # type: ignore[union-attr]
    values: tuple[Any, ...] = tuple(plain) if isinstance(plain, Iterable) else (plain,) * num_codebooks
    if len(values) != num_codebooks:
        raise ValueError(f"{name} must be an int or have one entry for each of {num_codebooks} codebooks; got {value}")
    return tuple(as_size(name, entry) for entry in values)
