"""The table of all quantizers, which every law runs through."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from depthq import BinaryQuantizer, DepthwiseQuantizer, ResidualQuantizer, ScalarQuantizer, SharedQuantizer
from depthq.quantizers import NoQuantizer, Quantizer


@dataclass(frozen=True)
class Row:
    """A quantizer, and in plain operations what it should do."""

    make: Callable[..., Quantizer]
    """Takes further options by keyword."""
    seen: Callable[[Quantizer, Tensor, list[Tensor]], list[Tensor]]
    """What each codebook compares with its codewords, (N, D_m) with gradient, from the quantizer, rows (N, dim) and the
    codewords chosen, (N, D_m) each."""
    join: Callable[[list[Tensor]], Tensor]
    """Quantized rows (N, out_dim) from what each codebook saw, as if there were no rounding: their gradient is ours."""
    codebooks: Callable[[Quantizer], list[Tensor]] = lambda quantizer: list(quantizer.codebooks)
    """(K_m, D_m) each."""
    has_codes: bool = True
    """Whether there is at least one codebook."""
    is_learned: bool = False
    """Whether the codebooks are learned."""
    commits: bool = True
    """Whether there is a commitment loss."""

    def codewords(self, quantizer: Quantizer, codes: Tensor) -> list[Tensor]:
        """Of codes (N, M), (N, D_m) each."""
        return [codebook.detach()[codes[:, m]] for m, codebook in enumerate(self.codebooks(quantizer))]


def slices(*widths: int):
    return lambda quantizer, rows, codewords: list(rows.split(widths, dim=1))


def copies(quantizer, rows, codewords):
    return [rows] * quantizer.num_codebooks


def residuals(quantizer, rows, codewords):
    return [rows - sum(codewords[:m], torch.zeros_like(rows)) for m in range(len(codewords))]


def bounded(quantizer, rows, codewords):
    """4 x 3 values: the first digit's shift takes 0 to 0, where its values are -2, -1, 0 and 1 halves."""
    half_range = 1.001 * torch.tensor([1.5, 1.0])
    offset, half = torch.tensor([0.5, 0.0]), torch.tensor([2.0, 1.0])
    shift = torch.atanh(offset / half_range)
    return [((torch.tanh(x + shift)) * half_range - offset) / half for x in rows.split(2, dim=1)]


def directions(quantizer, rows, codewords):
    return [x / x.norm(dim=1, keepdim=True) for x in rows.split(3, dim=1)]


def concat(seen):
    return torch.cat(seen, dim=1)


def depthwise(*widths: int, sizes=8, **options) -> Row:
    make = partial(DepthwiseQuantizer, sum(widths), len(widths), sizes, **options)
    return Row(make, slices(*widths), concat, is_learned=True)


def cosine(**options) -> Row:
    return Row(partial(DepthwiseQuantizer, 9, 3, 8, distance="cosine", **options), directions, concat, is_learned=True)


def shared(join, **options) -> Row:
    return Row(partial(SharedQuantizer, 5, 3, **options), copies, join, is_learned=True)


def residual(**options) -> Row:
    # The stages refine one vector, to which the gradient passes once.
    return Row(partial(ResidualQuantizer, 5, 3, **options), residuals, lambda seen: seen[0], is_learned=True)


TABLE = {
    "depthwise": depthwise(4, 4, 4),
    "depthwise-padded": depthwise(4, 4, 2),
    "depthwise-uneven-dims": depthwise(3, 4, 5, codebook_dim=[3, 4, 5]),
    "depthwise-uneven-sizes": depthwise(4, 4, 4, sizes=[4, 8, 6]),
    "depthwise-gradient": depthwise(4, 4, 4, codebook_update="gradient"),
    "depthwise-cosine": cosine(),
    "depthwise-cosine-gradient": cosine(codebook_update="gradient"),
    "shared-concat": shared(concat, codebook_size=8),
    "shared-sum": shared(sum, codebook_size=[4, 8, 6], combine="sum"),
    "residual": residual(codebook_size=[4, 8, 6]),
    "residual-gradient": residual(codebook_size=8, codebook_update="gradient"),
    "residual-dropout": residual(codebook_size=8, quantizer_dropout=1.0),
    "scalar": Row(partial(ScalarQuantizer, 6, 3, 12), bounded, concat, commits=False),
    "binary": Row(partial(BinaryQuantizer, 9, 3, 8), directions, concat),
    "binary-off-sphere": Row(partial(BinaryQuantizer, 9, 3, 8, on_sphere=False), slices(3, 3, 3), concat),
    "none": Row(partial(NoQuantizer, 6), slices(6), concat, lambda quantizer: [], has_codes=False, commits=False),
}
