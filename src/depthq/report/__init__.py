"""What people look at: pictures and plots of codes, and one HTML page about a run."""

from depthq.report.figures import AnalyzedRun, draw_figures
from depthq.report.page import Measured, write_report
from depthq.report.table import comparison_table

__all__ = ["AnalyzedRun", "Measured", "comparison_table", "draw_figures", "write_report"]
