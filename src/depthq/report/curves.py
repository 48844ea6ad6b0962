"""Training curves from a run's metrics.jsonl, placed for drawing."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from depthq.extras import explain_missing

NUM_TICKS = 4
MAX_POINTS = 400  # of one curve; of more, every so many-th is drawn
MARGIN = 0.05  # of the range of values, above and below them
LOG_RANGE = 8.0  # highest over lowest value from which a positive curve is drawn on a log scale


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    label: str
    percent: float
    """From the left or from the top."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    label: str
    points: tuple[tuple[int, float], ...]
    """(step, value)."""
    places: tuple[tuple[float, float], ...]
    """(from the left, from the top) of each point, in percent."""


@dataclass(frozen=True)
class Chart:
    """One metric over the steps of training."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    steps: tuple[Tick, ...]
    values: tuple[Tick, ...]
    is_log: bool

    @property
    def in_words(self) -> str:
        """For those who cannot see it: where each curve starts and ends."""
        return "; ".join(
            f"{curve.label} from {curve.points[0][1]:.4g} at step {curve.points[0][0]} "
            f"to {curve.points[-1][1]:.4g} at step {curve.points[-1][0]}"
            for curve in self.curves
        )


CHARTS = (
    ("Image given codes", "bits/dim", {"training": "nll_bits_per_dim", "validation": "validation_nll_bits_per_dim"}),
    (
        "Image given codes and neighbours",
        "bits/dim",
        {"training": "causal_nll_bits_per_dim", "validation": "validation_causal_nll_bits_per_dim"},
    ),
    ("L2, normalised space", "", {"training": "mse_normalized", "validation": "validation_mse_normalized"}),
    ("PSNR", "dB", {"validation": "validation_psnr_db"}),
    ("Perplexity", "codes", {"training": "perplexity"}),
    ("Usage", "share of codes", {"training": "usage"}),
    ("Commitment loss", "", {"training": "commitment_loss"}),
)
"""Title, unit, and the key of metrics.jsonl behind each curve."""


def charts_of(rows: Sequence[dict[str, float]]) -> list[Chart]:
    """The charts that the rows of a metrics.jsonl have finite points for."""
    charts = []
    for title, unit, keys in CHARTS:
        curves = {label: _points(rows, key) for label, key in keys.items()}
        curves = {label: points for label, points in curves.items() if points}
        if curves:
            charts.append(_chart(title, unit, curves))
    return charts


def _points(rows: Iterable[dict[str, float]], key: str) -> list[tuple[int, float]]:
    points = [(int(row["step"]), row[key]) for row in rows if key in row and math.isfinite(row[key])]
    stride = math.ceil(len(points) / MAX_POINTS) or 1
    return points[(len(points) - 1) % stride :: stride]  # the last point is among them


def _chart(title: str, unit: str, curves: dict[str, list[tuple[int, float]]]) -> Chart:
    values = [value for points in curves.values() for _, value in points]
    last_step = max(1, *(step for points in curves.values() for step, _ in points))  # 1: an axis has a length
    is_log = min(values) > 0 and max(values) / min(values) > LOG_RANGE
    from_top = _from_top(values, math.log if is_log else float)
    return Chart(
        title=title,
        unit=unit,
        curves=tuple(
            Curve(label, tuple(points), tuple((100 * step / last_step, from_top(value)) for step, value in points))
            for label, points in curves.items()
        ),
        steps=_step_ticks(last_step),
        values=_value_ticks(values, from_top, is_log),
        is_log=is_log,
    )


def _from_top(values: Sequence[float], scale: Callable[[float], float]) -> Callable[[float], float]:
    """From a value to its place in percent: all values fit, with a margin above and below."""
    low, high = scale(min(values)), scale(max(values))
    margin = MARGIN * (high - low) or 0.5
    return lambda value: 100 * (high + margin - scale(value)) / (high - low + 2 * margin)


def _step_ticks(last_step: int) -> tuple[Tick, ...]:
    with explain_missing():
        from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(NUM_TICKS, integer=True).tick_values(0, last_step)
    return tuple(Tick(f"{tick:,.0f}", 100 * tick / last_step) for tick in ticks if 0 <= tick <= last_step)


def _value_ticks(values: Sequence[float], from_top: Callable[[float], float], is_log: bool) -> tuple[Tick, ...]:
    with explain_missing():
        from matplotlib.ticker import LogLocator, MaxNLocator

    locator = LogLocator(subs=(1, 2, 5), numticks=20) if is_log else MaxNLocator(NUM_TICKS)
    ticks = (Tick(f"{tick:.4g}", from_top(tick)) for tick in locator.tick_values(min(values), max(values)))
    return tuple(tick for tick in ticks if 0 <= tick.percent <= 100)
