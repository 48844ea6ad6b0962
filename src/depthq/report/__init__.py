"""What people look at: pictures and plots of codes, and one HTML page about a run."""

from typing import TYPE_CHECKING

from depthq.lazy import lazy_names

if TYPE_CHECKING:
    from depthq.report.code_plots import AnalyzedCodes, draw_plots
    from depthq.report.page import Measured, write_report
    from depthq.report.pictures import AnalyzedRun, draw_pictures
    from depthq.report.samples import draw_samples
    from depthq.report.table import comparison_table
else:  # each needs packages of its own
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "AnalyzedCodes": "depthq.report.code_plots",
            "AnalyzedRun": "depthq.report.pictures",
            "Measured": "depthq.report.page",
            "comparison_table": "depthq.report.table",
            "draw_pictures": "depthq.report.pictures",
            "draw_plots": "depthq.report.code_plots",
            "draw_samples": "depthq.report.samples",
            "write_report": "depthq.report.page",
        },
    )

__all__ = [
    "AnalyzedCodes",
    "AnalyzedRun",
    "Measured",
    "comparison_table",
    "draw_pictures",
    "draw_plots",
    "draw_samples",
    "write_report",
]
