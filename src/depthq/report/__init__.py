"""What people look at: pictures and plots of codes, and one HTML page about a run."""

from typing import TYPE_CHECKING

from depthq.lazy import lazy_names

if TYPE_CHECKING:
    from depthq.report.figures import AnalyzedRun, draw_figures
    from depthq.report.page import Measured, write_report
    from depthq.report.table import comparison_table
else:  # each needs packages of its own
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "AnalyzedRun": "depthq.report.figures",
            "Measured": "depthq.report.page",
            "comparison_table": "depthq.report.table",
            "draw_figures": "depthq.report.figures",
            "write_report": "depthq.report.page",
        },
    )

__all__ = ["AnalyzedRun", "Measured", "comparison_table", "draw_figures", "write_report"]
