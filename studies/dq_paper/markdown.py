"""Tables and numbers as the pages have them."""

import math
from collections.abc import Iterable, Sequence

from studies.dq_paper.row_results import Measured

Lines = list[str]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """A Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def cell(metric: Measured | None) -> str:
    """A metric with its spread; empty where there is none."""
    if metric is None:
        return ""
    if not metric.deviation:  # of one seed, or the same in all
        return f"{metric.mean:.4g}"
    return f"{with_deviation(metric.mean, metric.deviation)} ({metric.seeds})"


def with_deviation(mean: float, deviation: float) -> str:
    """The deviation with one digit, two if the first is 1; the mean with as many decimals."""
    exponent = math.floor(math.log10(deviation))
    decimals = max(0, -exponent + (deviation < 2 * 10**exponent))
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def number(value: float | None) -> str:
    """Three digits; empty where there is none."""
    return "" if value is None else f"{value:.3g}"
