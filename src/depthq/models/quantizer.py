"""Which quantizer a name stands for."""

from collections.abc import Callable

from depthq.quantizers import (
    BinaryQuantizer,
    CodebookOptions,
    DepthwiseQuantizer,
    NoQuantizer,
    Quantizer,
    ResidualQuantizer,
    ScalarQuantizer,
    SharedQuantizer,
)
from depthq.quantizers.binary import bits_of
from depthq.quantizers.scalar import values_of

MakeQuantizer = Callable[[int, int, int, CodebookOptions], Quantizer]
"""(M, K of the level, D, options of learned codebooks) -> the level's quantizer."""


def _depthwise(num_codebooks: int, codebook_size: int, codebook_dim: int, options: CodebookOptions) -> Quantizer:
    return DepthwiseQuantizer(num_codebooks * codebook_dim, num_codebooks, codebook_size, **options)


def _shared(num_codebooks: int, codebook_size: int, codebook_dim: int, options: CodebookOptions) -> Quantizer:
    return SharedQuantizer(codebook_dim, num_codebooks, codebook_size, **options)


def _residual(num_codebooks: int, codebook_size: int, codebook_dim: int, options: CodebookOptions) -> Quantizer:
    return ResidualQuantizer(codebook_dim, num_codebooks, codebook_size, **options)


def _scalar(num_codebooks: int, codebook_size: int, codebook_dim: int, options: CodebookOptions) -> Quantizer:
    """K alone says how many dimensions a slice has."""
    values = values_of(codebook_size)
    return ScalarQuantizer(num_codebooks * len(values), num_codebooks, codebook_size, values_per_dim=values)


def _binary(num_codebooks: int, codebook_size: int, codebook_dim: int, options: CodebookOptions) -> Quantizer:
    """K alone says how many dimensions a slice has."""
    dim = num_codebooks * bits_of(codebook_size)
    weight = options.get("commitment_weight", 0.25)
    return BinaryQuantizer(dim, num_codebooks, codebook_size, commitment_weight=weight)


def _none(num_codebooks: int, codebook_size: int, codebook_dim: int, options: CodebookOptions) -> Quantizer:
    return NoQuantizer(num_codebooks * codebook_dim)


QUANTIZERS: dict[str, MakeQuantizer] = {
    "depthwise": _depthwise,
    "shared": _shared,
    "residual": _residual,
    "scalar": _scalar,
    "binary": _binary,
    "none": _none,
}
"""What makes the quantizer of a level, by the name in `DQAEConfig.quantizer`.

Add your own under a new name: a function of plain values (num_codebooks, codebook_size of the level, codebook_dim,
options) that returns a `depthq.quantizers.Quantizer`, of whatever `dim` it likes. `options` holds what the
configuration says on learned codebooks (`commitment_weight`, `codebook_update`, `distance`, `rotation_trick`, `decay`,
`rare_code_threshold`); take from it what applies.
"""
