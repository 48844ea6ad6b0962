"""depthq: images to a few discrete codes per position and back, in honest bits."""

from depthq import analysis, features
from depthq.codes import Codes
from depthq.models import DQAE, DQAEConfig, DQAEOutput
from depthq.quantizers import CodebookHealth, DepthwiseQuantizer, QuantizerOutput, ResidualQuantizer, SharedQuantizer

__all__ = [
    "DQAE",
    "CodebookHealth",
    "Codes",
    "DQAEConfig",
    "DQAEOutput",
    "DepthwiseQuantizer",
    "QuantizerOutput",
    "ResidualQuantizer",
    "SharedQuantizer",
    "analysis",
    "features",
]
