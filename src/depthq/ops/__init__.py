"""The hot maths: plain PyTorch beside the fast kernels, one signature for both."""

from depthq.ops.nearest_code import BACKENDS, nearest_code, which_backend
from depthq.ops.segment_sums import segment_sums

__all__ = ["BACKENDS", "nearest_code", "segment_sums", "which_backend"]
