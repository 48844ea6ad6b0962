"""Codes: what a model says of images, how evenly its codebooks are used, and the file that holds them."""

from depthq.codes.batch import CodesBatch
from depthq.codes.codes import Codes, check_codes
from depthq.codes.usage import CodebookUsage, count_codes

__all__ = ["CodebookUsage", "Codes", "CodesBatch", "check_codes", "count_codes"]
