"""depthq: images to a few discrete codes per position and back, in honest bits."""

from depthq.codes import Codes

__all__ = ["Codes"]
