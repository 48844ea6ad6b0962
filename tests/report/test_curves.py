import itertools

import pytest

from depthq.report.curves import charts_of

ROWS = [
    {"step": 10, "perplexity": 10.0, "mse_normalized": 10.0},
    {"step": 20, "perplexity": 20.0, "mse_normalized": 0.1},
    {"step": 20, "validation_mse_normalized": 1.0},
]


def charts_by_title(rows):
    return {chart.title: chart for chart in charts_of(rows)}


def test_points_lie_where_their_values_are():
    """5 % margin of a range of 10 above and below: 20 lies 0.5 of 11 under the top, 10 lies 10.5 of 11."""
    chart = charts_by_title(ROWS)["Perplexity"]
    (curve,) = chart.curves
    assert curve.points == ((10, 10.0), (20, 20.0))
    assert curve.places == (pytest.approx((50, 100 * 10.5 / 11)), pytest.approx((100, 100 * 0.5 / 11)))
    assert not chart.is_log
    tick = next(tick for tick in chart.values if tick.label == "20")
    assert tick.percent == pytest.approx(100 * 0.5 / 11)


def test_a_wide_positive_range_is_drawn_on_a_log_scale():
    chart = charts_by_title(ROWS)["L2, normalised space"]
    assert chart.is_log
    assert [curve.label for curve in chart.curves] == ["training", "validation"]
    assert chart.curves[1].places[0] == pytest.approx((100, 50))  # 1 is half way from 10 to 0.1
    assert "1" in [tick.label for tick in chart.values]


def test_ticks_stay_inside():
    for chart in charts_of(ROWS):
        assert all(0 <= tick.percent <= 100 for tick in (*chart.values, *chart.steps))


def test_a_single_point_has_a_chart():
    chart = charts_by_title([{"step": 7, "validation_psnr_db": 20.0}])["PSNR"]
    assert chart.curves[0].places == (pytest.approx((100, 50)),)


def test_rows_of_step_0_alone_have_a_chart():
    chart = charts_by_title([{"step": 0, "usage": 0.25}, {"step": 0, "usage": 0.75}])["Usage"]
    assert [left for left, _ in chart.curves[0].places] == [0, 0]
    assert [tick.label for tick in chart.steps] == ["0", "1"]


def test_what_is_not_finite_is_left_out():
    rows = [{"step": 1, "perplexity": float("nan")}, {"step": 2, "perplexity": 3.0}, {"step": 3, "usage": float("inf")}]
    charts = charts_by_title(rows)
    assert charts["Perplexity"].curves[0].points == ((2, 3.0),)
    assert "Usage" not in charts


def test_a_long_curve_is_thinned_but_ends_where_it_ends():
    (chart,) = charts_of([{"step": step, "usage": 1 / step} for step in range(1, 10_001)])
    (curve,) = chart.curves
    assert len(curve.points) == 400
    assert curve.points[-1] == (10_000, 1 / 10_000)
    steps = [step for step, _ in curve.points]
    assert {after - before for before, after in itertools.pairwise(steps)} == {25}


def test_no_rows_no_charts():
    assert charts_of([]) == []


def test_a_chart_in_words():
    words = charts_by_title(ROWS)["L2, normalised space"].in_words
    assert words == "training from 10 at step 10 to 0.1 at step 20; validation from 1 at step 20 to 1 at step 20"
