"""What follows from the results: each claim, whether it holds in them, and the numbers that say so."""

from studies.dq_paper.findings.page import findings

__all__ = ["findings"]
