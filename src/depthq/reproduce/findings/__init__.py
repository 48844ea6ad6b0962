"""What follows from the results: each claim, whether it holds in them, and the numbers that say so."""

from depthq.reproduce.findings.page import findings

__all__ = ["findings"]
