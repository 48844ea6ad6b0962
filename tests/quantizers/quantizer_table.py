"""The table of all quantizers, which every law runs through."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
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
    join: Callable[[Quantizer, Tensor, list[Tensor]], Tensor]
    """Quantized rows (N, out_dim) from the quantizer, rows (N, dim) and what each codebook saw, as if there were no
    rounding: their gradient is ours."""
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
    return [on_sphere(x) for x in rows.split(3, dim=1)]


def residual_directions(quantizer, rows, codewords):
    return [on_sphere(x) for x in residuals(quantizer, rows, codewords)]


def projected_slices(quantizer, rows, codewords):
    return list(quantizer.project_in(rows).split(2, dim=1))


def on_sphere(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def concat(quantizer, rows, seen):
    return torch.cat(seen, dim=1)


def total(quantizer, rows, seen):
    return sum(seen)


def whole(quantizer, rows, seen):
    """The stages refine one vector, to which the gradient passes once."""
    return rows


def project_out(quantizer, rows, seen):
    return quantizer.project_out(torch.cat(seen, dim=1))


def depthwise(*widths: int, sizes=8, **options) -> Row:
    make = partial(DepthwiseQuantizer, sum(widths), len(widths), sizes, **options)
    return Row(make, slices(*widths), concat, is_learned=True)


def shared(join, **options) -> Row:
    return Row(partial(SharedQuantizer, 5, 3, **options), copies, join, is_learned=True)


def residual(**options) -> Row:
    return Row(partial(ResidualQuantizer, 5, 3, **options), residuals, whole, is_learned=True)


def frozen(row: Row) -> Row:
    """It learns nothing; its codebooks come from elsewhere."""
    return replace(row, make=lambda **options: row.make(**options).freeze(), is_learned=False)


LEARNED = {
    "depthwise": (partial(DepthwiseQuantizer, 9, 3, 8), {"euclidean": slices(3, 3, 3), "cosine": directions}, concat),
    "shared": (
        partial(SharedQuantizer, 3, 3, 8),
        {"euclidean": copies, "cosine": lambda quantizer, rows, codewords: [on_sphere(rows)] * 3},
        concat,
    ),
    "residual": (
        partial(ResidualQuantizer, 5, 3, 8),
        {"euclidean": residuals, "cosine": residual_directions},
        whole,
    ),
}
"""Each kind of learned codebooks: how it is made, what it sees by distance, how that is joined."""


def combinations() -> dict[str, Row]:
    """All kinds of learned codebooks x distance x update, each also frozen."""
    rows = {}
    for name, (make, seen, join) in LEARNED.items():
        for distance, update in itertools.product(("euclidean", "cosine"), ("ema", "gradient")):
            options = {"distance": distance, "codebook_update": update}
            row = Row(partial(make, **options), seen[distance], join, is_learned=True)
            rows[f"{name}-{distance}-{update}"] = row
            rows[f"{name}-{distance}-{update}-frozen"] = frozen(row)
    return rows


TABLE = {
    **combinations(),
    "depthwise-padded": depthwise(4, 4, 2),
    "depthwise-uneven-dims": depthwise(3, 4, 5, codebook_dim=[3, 4, 5]),
    "depthwise-uneven-sizes": depthwise(4, 4, 4, sizes=[4, 8, 6]),
    "shared-sum": shared(total, codebook_size=[4, 8, 6], combine="sum"),
    "residual-uneven-sizes": residual(codebook_size=[4, 8, 6]),
    "projected": Row(
        partial(DepthwiseQuantizer, 9, 3, 8, codebook_dim=2), projected_slices, project_out, is_learned=True
    ),
    "entropy": depthwise(4, 4, 4, entropy_weight=0.1),
    "residual-dropout": residual(codebook_size=8, quantizer_dropout=1.0),
    "scalar": Row(partial(ScalarQuantizer, 6, 3, 12), bounded, concat, commits=False),
    "binary": Row(partial(BinaryQuantizer, 9, 3, 8), directions, concat),
    "binary-off-sphere": Row(partial(BinaryQuantizer, 9, 3, 8, on_sphere=False), slices(3, 3, 3), concat),
    "none": Row(partial(NoQuantizer, 6), slices(6), concat, lambda quantizer: [], has_codes=False, commits=False),
}
