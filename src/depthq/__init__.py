"""depthq: images to a few discrete codes per position and back, in honest bits."""

from depthq import analysis, features
from depthq.codes import Codes
from depthq.models import DQAE, DQAEConfig, DQAEOutput
from depthq.quantizers import (
    BinaryQuantizer,
    CodebookHealth,
    DepthwiseQuantizer,
    QuantizerOutput,
    ResidualQuantizer,
    ScalarQuantizer,
    SharedQuantizer,
)

__all__ = [
    "DQAE",
    "BinaryQuantizer",
    "CodebookHealth",
    "Codes",
    "DQAEConfig",
    "DQAEOutput",
    "DepthwiseQuantizer",
    "QuantizerOutput",
    "ResidualQuantizer",
    "ScalarQuantizer",
    "SharedQuantizer",
    "analysis",
    "features",
]
