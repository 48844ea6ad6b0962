"""depthq: images to a few discrete codes per position and back, in honest bits."""

from depthq.codes import Codes
from depthq.quantizers import DepthwiseQuantizer, QuantizerOutput, ResidualQuantizer, SharedQuantizer

__all__ = ["Codes", "DepthwiseQuantizer", "QuantizerOutput", "ResidualQuantizer", "SharedQuantizer"]
