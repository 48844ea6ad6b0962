"""What people look at: figures of codes, and one HTML page about a run."""

from depthq.report.figures import AnalyzedRun, draw_figures
from depthq.report.page import Measured, write_report
from depthq.report.sample import ImageSample
from depthq.report.summary import CodeSummary, summarize_codes
from depthq.report.table import comparison_table

__all__ = [
    "AnalyzedRun",
    "CodeSummary",
    "ImageSample",
    "Measured",
    "comparison_table",
    "draw_figures",
    "summarize_codes",
    "write_report",
]
