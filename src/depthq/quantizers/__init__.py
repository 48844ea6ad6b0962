"""Quantizers: a feature tensor to M codes per position, and back."""

from depthq.quantizers.base import NonFiniteLatentsError, Quantizer
from depthq.quantizers.binary import BinaryQuantizer
from depthq.quantizers.depthwise import DepthwiseQuantizer
from depthq.quantizers.grid import GridQuantizer
from depthq.quantizers.health import CodebookHealth
from depthq.quantizers.learned import CodebookOptions, LearnedQuantizer, SingleStageQuantizer
from depthq.quantizers.micro_batches import micro_batch
from depthq.quantizers.none import NoQuantizer
from depthq.quantizers.output import QuantizedRows, QuantizerOutput
from depthq.quantizers.residual import ResidualQuantizer
from depthq.quantizers.scalar import ScalarQuantizer
from depthq.quantizers.shared import SharedQuantizer
from depthq.quantizers.sphere import Distance

__all__ = [
    "BinaryQuantizer",
    "CodebookHealth",
    "CodebookOptions",
    "DepthwiseQuantizer",
    "Distance",
    "GridQuantizer",
    "LearnedQuantizer",
    "NoQuantizer",
    "NonFiniteLatentsError",
    "QuantizedRows",
    "Quantizer",
    "QuantizerOutput",
    "ResidualQuantizer",
    "ScalarQuantizer",
    "SharedQuantizer",
    "SingleStageQuantizer",
    "micro_batch",
]
