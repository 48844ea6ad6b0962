"""Quantizers: a feature tensor to M codes per position, and back."""

from depthq.quantizers.base import NonFiniteLatentsError, Quantizer
from depthq.quantizers.depthwise import DepthwiseQuantizer
from depthq.quantizers.health import CodebookHealth
from depthq.quantizers.output import QuantizerOutput
from depthq.quantizers.residual import ResidualQuantizer
from depthq.quantizers.shared import SharedQuantizer

__all__ = [
    "CodebookHealth",
    "DepthwiseQuantizer",
    "NonFiniteLatentsError",
    "Quantizer",
    "QuantizerOutput",
    "ResidualQuantizer",
    "SharedQuantizer",
]
