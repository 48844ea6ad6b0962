"""What people look at: pictures and plots of codes, and one HTML page about a run."""

from depthq.report.code_plots import AnalyzedCodes, draw_plots
from depthq.report.page import Measured, write_report
from depthq.report.pictures import AnalyzedRun, draw_pictures
from depthq.report.table import comparison_table

__all__ = [
    "AnalyzedCodes",
    "AnalyzedRun",
    "Measured",
    "comparison_table",
    "draw_pictures",
    "draw_plots",
    "write_report",
]
