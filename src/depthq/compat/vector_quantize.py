"""Ours with the call, the returns and the checkpoints of vector-quantize-pytorch, which need not be installed.

`VectorQuantize`, `ResidualVQ` and `GroupedResidualVQ` take and return what theirs do: channels last, heads last, -1 and
zeros where masked, a loss that is 0 in eval. `load_peer_state_dict` reads a state_dict of theirs, `peer_state_dict`
writes one. What is ours stays: exact codes, codes that decode to what was returned in training too, re-drawing of rare
codes (`rare_code_threshold`), statistics joined over processes. An option of theirs that is not here is a TypeError.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from depthq.quantizers import DepthwiseQuantizer, LearnedQuantizer, ResidualQuantizer
from depthq.quantizers.sphere import on_sphere

_CODEBOOK = "_codebook."


class VectorQuantize(nn.Module):
    """One codeword per position, or with heads > 1 one per head: depthwise quantization.

    Shapes: x (B, N, dim), or (B, dim, N) if not `channel_last`, or (B, dim, H, W) if `accept_image_fmap`, or (B, dim).

    Args:
        dim: Size of the channel axis.
        codebook_size: K.
        codebook_dim: Of a head's codewords, at most dim / heads, and that by default (theirs: `dim` for each head,
            hence a projection to heads x dim); if smaller, linear layers lead there and back.
        heads: M.
        separate_codebook_per_head: Must be True if there are several heads.
        decay: Of the EMA.
        eps: Laplace smoothing of the EMA counts.
        commitment_weight: Of the commitment loss, which is a mean over heads as well.
        use_cosine_sim: Whether latents and codewords lie on the unit sphere.
        rotation_trick: Whether the gradient takes the rotation, not the straight way.
        freeze_codebook: Whether codebooks stay as they are.
        channel_last: Whether x is (B, N, dim).
        accept_image_fmap: Whether x is (B, dim, H, W), and indices (B, H, W) or (B, H, W, heads).
        rare_code_threshold: Codes used at most this share of the mean are re-drawn.

    Raises:
        ValueError: If a size or an option is out of range, or heads are to share a codebook.
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_dim: int | None = None,
        heads: int = 1,
        separate_codebook_per_head: bool = False,
        decay: float = 0.8,
        eps: float = 1e-5,
        freeze_codebook: bool = False,
        use_cosine_sim: bool = False,
        channel_last: bool = True,
        accept_image_fmap: bool = False,
        commitment_weight: float = 1.0,
        rotation_trick: bool = False,
        rare_code_threshold: float = 0.1,
    ):
        super().__init__()
        if heads > 1 and not separate_codebook_per_head:
            raise ValueError(
                f"separate_codebook_per_head must be True for {heads} heads; got False; heads that share one codebook "
                "are heads folded into the batch: x.unflatten(-1, (heads, -1)).flatten(1, 2)"
            )
        if codebook_dim is not None and codebook_dim * heads > dim:
            raise ValueError(
                f"codebook_dim must be at most dim / heads = {dim // heads}, since ours projects down only; "
                f"got {codebook_dim}"
            )
        self.heads = heads
        self.quantizer = DepthwiseQuantizer(
            dim,
            heads,
            codebook_size,
            codebook_dim=codebook_dim,
            axis=-1 if channel_last and not accept_image_fmap else 1,
            commitment_weight=commitment_weight / heads,
            decay=decay,
            epsilon=eps,
            rare_code_threshold=rare_code_threshold,
            distance=_distance(use_cosine_sim),
            rotation_trick=rotation_trick,
        )
        if freeze_codebook:
            self.quantizer.freeze()

    def forward(
        self, x: Tensor, mask: Tensor | None = None, lens: Tensor | None = None, freeze_codebook: bool | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(quantized as x; indices int64 (B, N), with heads (B, N, heads); loss, a scalar, 0 in eval).

        Args:
            x: Floating point.
            mask: bool (B, N), True where valid.
            lens: int (B,), how many positions of each entry are valid, of a sequence; instead of a mask.
            freeze_codebook: Whether this pass learns nothing; None as the module says.

        Raises:
            ValueError: If mask and lens are given, x is no sequence for lens, or one of them does not fit x.
        """
        out = _quantize(self.quantizer, x, _as_mask(mask, lens, x, self.quantizer.axis), freeze_codebook)
        codes = out.codes.movedim(1, -1)
        loss = out.loss if self.training else out.loss.new_zeros(())
        return out.quantized, codes if self.heads > 1 else codes[..., 0], loss

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """Codewords (B, N, heads x codebook_dim) of indices (B, N) or (B, N, heads), before the projection out; 0 where
        the index is -1."""
        codes = indices if self.heads > 1 else indices[..., None]
        codewords = self.quantizer.state.lookup(codes.clamp(min=0).flatten(0, -2)).unflatten(0, codes.shape[:-1])
        return codewords.where((codes >= 0)[..., None], 0).flatten(-2).movedim(-1, self.quantizer.axis)

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """What `forward` returned as quantized with these indices: 0 where they are -1."""
        codes = indices if self.heads > 1 else indices[..., None]
        return self.quantizer.decode(codes.movedim(-1, 1), (codes >= 0).all(-1))

    @property
    def codebook(self) -> Tensor:
        """(K, D), with heads (heads, K, D)."""
        codebooks = torch.stack(list(self.quantizer.codebooks))
        return codebooks if self.heads > 1 else codebooks[0]

    def load_peer_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state_dict of their `VectorQuantize` of the same sizes; ValueError says what does not fit."""
        books, counts, sums = (state.get(_CODEBOOK + name) for name in ("embed", "cluster_size", "embed_avg"))
        _load(self.quantizer, state, books, counts, sums)

    def peer_state_dict(self) -> dict[str, Tensor]:
        """What their `VectorQuantize` of the same sizes loads."""
        codebooks = _peer_codebooks(self.quantizer.state, slice(None))
        return _projections(self.quantizer) | {_CODEBOOK + name: tensor for name, tensor in codebooks.items()}


class ResidualVQ(nn.Module):
    """Each codebook quantizes what the ones before left.

    Shapes: x (B, N, dim), or (B, dim, H, W) if `accept_image_fmap`.

    Args:
        dim: Size of the channel axis.
        num_quantizers: M.
        codebook_size: K.
        codebook_dim: Of the codewords, at most `dim`; if smaller, linear layers lead there and back.
        quantize_dropout: Whether a training step uses the first n quantizers alone, n uniform in 1..M; indices of the
            others are then -1, their losses 0.
        accept_image_fmap: Whether x is (B, dim, H, W), and indices (B, H, W, M).
        options: `decay`, `eps`, `commitment_weight`, `use_cosine_sim`, `rotation_trick` and `rare_code_threshold`, as
            in `VectorQuantize`.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_quantizers: int,
        codebook_size: int,
        codebook_dim: int | None = None,
        quantize_dropout: bool = False,
        accept_image_fmap: bool = False,
        decay: float = 0.8,
        eps: float = 1e-5,
        commitment_weight: float = 1.0,
        use_cosine_sim: bool = False,
        rotation_trick: bool = False,
        rare_code_threshold: float = 0.1,
    ):
        super().__init__()
        self.commitment_weight = commitment_weight
        self.quantizer = ResidualQuantizer(
            dim,
            num_quantizers,
            codebook_size,
            codebook_dim=codebook_dim,
            quantizer_dropout=float(quantize_dropout),
            axis=1 if accept_image_fmap else -1,
            commitment_weight=commitment_weight,
            decay=decay,
            epsilon=eps,
            rare_code_threshold=rare_code_threshold,
            distance=_distance(use_cosine_sim),
            rotation_trick=rotation_trick,
        )

    def forward(
        self, x: Tensor, mask: Tensor | None = None, return_all_codes: bool = False, freeze_codebook: bool | None = None
    ) -> tuple[Tensor, ...]:
        """(quantized as x; indices int64 (B, N, M); losses (M,), 0 in eval; codewords (M, B, N, D) if asked for)."""
        out = _quantize(self.quantizer, x, mask, freeze_codebook)
        num_missing = self.quantizer.num_codebooks - out.codes.shape[1]
        indices = nn.functional.pad(out.codes.movedim(1, -1), (0, num_missing), value=-1)
        returned = out.quantized, indices, self._losses(x, indices, mask)
        return (*returned, self.get_codes_from_indices(indices)) if return_all_codes else returned

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """Codewords (M, B, N, D) of indices (B, N, M); 0 where the index is -1."""
        state = self.quantizer.state
        codewords = state.lookup(indices.clamp(min=0).flatten(0, -2)).unflatten(0, indices.shape[:-1])  # (B, N, M, D)
        return codewords.where((indices >= 0)[..., None], 0).movedim(-2, 0)

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """What `forward` returned as quantized with these indices: a quantizer with index -1 counts as zero."""
        num_kept = (indices >= 0).sum(-1)  # (B, N), 0 where masked
        parts = [
            self.quantizer.decode(indices[..., :num].movedim(-1, 1), num_kept == num)
            for num in {max(num, 1) for num in num_kept.unique().tolist()} or {1}
        ]
        return sum(parts[1:], parts[0])

    @property
    def codebooks(self) -> Tensor:
        """(M, K, D)."""
        return torch.stack(list(self.quantizer.codebooks))

    def load_peer_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state_dict of their `ResidualVQ` of the same sizes; ValueError says what does not fit."""
        stages = [f"layers.{m}.{_CODEBOOK}" for m in range(self.quantizer.num_codebooks)]
        extra = f"layers.{len(stages)}.{_CODEBOOK}embed"
        if extra in state:
            raise ValueError(f"num_quantizers must be that of the state to load, which has {extra}; got {len(stages)}")
        embed, counts, sums = (
            [state[stage + name] for stage in stages if stage + name in state]
            for name in ("embed", "cluster_size", "embed_avg")
        )
        _load(self.quantizer, state, *(torch.cat(part) if part else None for part in (embed, counts, sums)))

    def peer_state_dict(self) -> dict[str, Tensor]:
        """What their `ResidualVQ` of the same sizes loads."""
        found = _projections(self.quantizer)
        for m in range(self.quantizer.num_codebooks):
            codebooks = _peer_codebooks(self.quantizer.state, slice(m, m + 1))
            found |= {f"layers.{m}.{_CODEBOOK}{name}": tensor for name, tensor in codebooks.items()}
        return found

    def _losses(self, x: Tensor, indices: Tensor, mask: Tensor | None) -> Tensor:
        """Each stage's commitment loss, weighted: mean squared distance of what it saw to its codeword."""
        codewords = self.get_codes_from_indices(indices).detach()  # (M, B, N, D)
        if not self.training:
            return codewords.new_zeros(len(codewords))
        residual = x.float().movedim(self.quantizer.axis, -1)
        if self.quantizer.project_in is not None:
            residual = self.quantizer.project_in(residual)
        losses = []
        for codeword, index in zip(codewords, indices.unbind(-1), strict=True):
            seen = on_sphere(residual) if self.quantizer.distance == "cosine" else residual
            counts = (index >= 0) if mask is None else (index >= 0) & mask
            errors = (seen - codeword).square().mean(-1).where(counts, 0)
            losses.append(self.commitment_weight * errors.sum() / counts.sum().clamp(min=1))
            residual = residual - codeword
        return torch.stack(losses)


class GroupedResidualVQ(nn.Module):
    """`ResidualVQ` for each of several groups of channels.

    Args:
        dim: Size of the channel axis.
        groups: Into how many equal parts it is cut.
        accept_image_fmap: Whether x is (B, dim, H, W).
        options: Those of `ResidualVQ`.
    """

    def __init__(self, *, dim: int, groups: int = 1, accept_image_fmap: bool = False, **options: Any):
        super().__init__()
        if groups < 1 or dim % groups:
            raise ValueError(f"groups must divide dim={dim}; got {groups}")
        self.axis = 1 if accept_image_fmap else -1
        self.rvqs: Sequence[ResidualVQ] = nn.ModuleList(  # type: ignore[assignment]
            ResidualVQ(dim=dim // groups, accept_image_fmap=accept_image_fmap, **options) for _ in range(groups)
        )

    def forward(
        self, x: Tensor, mask: Tensor | None = None, return_all_codes: bool = False, freeze_codebook: bool | None = None
    ) -> tuple[Tensor, ...]:
        """As `ResidualVQ`, with a first axis for groups in front of indices, losses and codewords."""
        parts = x.chunk(len(self.rvqs), dim=self.axis)
        found = [rvq(part, mask, return_all_codes, freeze_codebook) for rvq, part in zip(self.rvqs, parts, strict=True)]
        quantized, *others = zip(*found, strict=True)
        return torch.cat(quantized, dim=self.axis), *(torch.stack(other) for other in others)

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """Codewords (groups, M, B, N, D) of indices (groups, B, N, M)."""
        return torch.stack([rvq.get_codes_from_indices(part) for rvq, part in zip(self.rvqs, indices, strict=True)])

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """What `forward` returned as quantized with these indices: a quantizer with index -1 counts as zero."""
        parts = [rvq.get_output_from_indices(part) for rvq, part in zip(self.rvqs, indices, strict=True)]
        return torch.cat(parts, dim=self.axis)

    @property
    def codebooks(self) -> Tensor:
        """(groups, M, K, D)."""
        return torch.stack([rvq.codebooks for rvq in self.rvqs])

    def load_peer_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state_dict of their `GroupedResidualVQ` of the same sizes; ValueError says what does not fit."""
        for group, rvq in enumerate(self.rvqs):
            prefix = f"rvqs.{group}."
            rvq.load_peer_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def peer_state_dict(self) -> dict[str, Tensor]:
        """What their `GroupedResidualVQ` of the same sizes loads."""
        return {
            f"rvqs.{group}.{name}": tensor
            for group, rvq in enumerate(self.rvqs)
            for name, tensor in rvq.peer_state_dict().items()
        }


def _distance(use_cosine_sim: bool) -> Literal["euclidean", "cosine"]:
    return "cosine" if use_cosine_sim else "euclidean"


def _as_mask(mask: Tensor | None, lens: Tensor | None, x: Tensor, axis: int) -> Tensor | None:
    if lens is None:
        return mask
    if mask is not None:
        raise ValueError("mask must not be given beside lens, which says the same; got both; pass one of them")
    if x.dim() != 3:
        raise ValueError(f"x must be a sequence for lens; got shape {tuple(x.shape)}; pass a mask")
    length = x.movedim(axis, -1).shape[1]
    return torch.arange(length, device=x.device) < lens[:, None]


def _quantize(quantizer: LearnedQuantizer, x: Tensor, mask: Tensor | None, freeze: bool | None):
    """One pass, which learns nothing if `freeze`; None as the quantizer says."""
    if freeze in (None, quantizer.is_frozen):
        return quantizer(x, mask)
    quantizer.freeze() if freeze else quantizer.unfreeze()
    try:
        return quantizer(x, mask)
    finally:
        quantizer.unfreeze() if freeze else quantizer.freeze()


def _load(
    quantizer: LearnedQuantizer,
    state: Mapping[str, Tensor],
    codebooks: Tensor | None,
    counts: Tensor | None,
    sums: Tensor | None,
) -> None:
    ours = quantizer.state.weight
    if codebooks is None or codebooks.shape != ours.shape:
        got = "no codebooks" if codebooks is None else tuple(codebooks.shape)
        raise ValueError(
            f"state must hold codebooks of shape {tuple(ours.shape)}, (codebooks, codebook_size, codebook_dim), as "
            f"this module has them; got {got}; construct the module with the sizes of theirs"
        )
    for name, own in _projections(quantizer).items():
        if name not in state or state[name].shape != own.shape:
            got = tuple(state[name].shape) if name in state else "none"
            raise ValueError(
                f"state must hold {name} of shape {tuple(own.shape)}; got {got}; check dim and codebook_dim"
            )
    unknown = [name for name in state if name.startswith("project_") and name not in _projections(quantizer)]
    if unknown:
        raise ValueError(f"state must hold no projection, as this module has none; got {unknown}; give codebook_dim")
    with torch.no_grad():
        for name, own in _projections(quantizer).items():
            own.copy_(state[name])
        quantizer.state.give(codebooks, counts, sums)


def _projections(quantizer: LearnedQuantizer) -> dict[str, Tensor]:
    """Their names for the weights are ours."""
    return {name: tensor for name, tensor in quantizer.state_dict().items() if name.startswith("project_")}


def _peer_codebooks(state: Any, which: slice) -> dict[str, Tensor]:
    return {
        "initted": torch.tensor(True),
        "cluster_size": state.ema_count[which].clamp(min=0).clone(),
        "embed_avg": state.ema_sum[which].clone(),
        "embed": state.weight[which].clone(),
    }
