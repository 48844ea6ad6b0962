"""The hot maths: plain PyTorch beside the fast kernels, one signature for both."""

from depthq.ops.nearest_code import nearest_code
from depthq.ops.segment_sums import segment_sums

__all__ = ["nearest_code", "segment_sums"]
