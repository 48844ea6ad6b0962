"""Results by their rows: the mean over seeds, and which spread its error rests on."""

import pytest

from studies.dq_paper import SCALES, find_item
from studies.dq_paper.markdown import cell
from studies.dq_paper.tests.saved import at_cpu, save


def test_spread_is_over_seeds(store):
    save(store, "table3", "M5-K128-l2-depthwise", seed=0, mse_normalized=0.03)
    save(store, "table3", "M5-K128-l2-depthwise", seed=1, mse_normalized=0.05)
    (row,) = [row for row in find_item("table3").rows if row.name == "M5-K128-l2-depthwise"]
    measured = at_cpu(store).metric(row, "mse_normalized")
    assert (measured.mean, measured.seeds) == (pytest.approx(0.04), 2)
    assert measured.deviation == pytest.approx(0.02 / 2**0.5)
    assert cell(measured) == "0.040 ± 0.014 (2)"


def errors_of(store, row, item="table3", metric="mse_normalized"):
    (declared,) = [declared for declared in find_item(item).rows if declared.name == row]
    found = at_cpu(store).metric(declared, metric)
    return found.error, found.degrees_of_freedom


def test_few_seeds_go_by_the_spread_of_their_quantizer(store):
    save(store, "table3", "M3-K128-l2-depthwise", mse_normalized=0.5)
    save(store, "table3", "M3-K128-l2-shared", mse_normalized=0.5)
    assert errors_of(store, "M3-K128-l2-depthwise") == (float("inf"), 1)
    for seed, error in enumerate((0.9, 1.1)):  # a deviation of 0.1 sqrt(2) of 1
        save(store, "table3", "M5-K128-l2-depthwise", seed=seed, mse_normalized=error)
    for seed, error in enumerate((4.0, 4.0, 4.0)):
        save(store, "table3", "M5-K128-l2-depthwise", seed=seed, scale=SCALES["miniature"], mse_normalized=error)
    # Of one run: relative to its mean. Of two: over the root of two.
    assert errors_of(store, "M3-K128-l2-depthwise") == (pytest.approx(0.05 * 2**0.5), 1)
    assert errors_of(store, "M5-K128-l2-depthwise") == (pytest.approx(0.1), 1)
    assert errors_of(store, "M3-K128-l2-shared") == (float("inf"), 1)  # another quantizer
    for seed, error in enumerate((2.0, 2.0)):  # no deviation at all
        save(store, "table3", "M10-K128-l2-depthwise", seed=seed, mse_normalized=error)
    assert errors_of(store, "M3-K128-l2-depthwise") == (pytest.approx(0.05), 2)


def test_spread_of_nats_is_the_same_at_any_mean(store):
    for seed, nats in enumerate((2.9, 3.1)):
        save(store, "table3", "M5-K128-ce-depthwise", seed=seed, nll_nats_per_dim=nats)
    save(store, "table3", "M1-K128-ce-depthwise", nll_nats_per_dim=6.0)
    assert errors_of(store, "M1-K128-ce-depthwise", metric="nll_nats_per_dim") == (pytest.approx(0.02**0.5), 1)


def test_many_seeds_go_by_their_own_spread(store):
    for seed, error in enumerate((1.0, 1.0, 1.0, 1.0, 2.0)):
        save(store, "table3", "M5-K128-l2-depthwise", seed=seed, mse_normalized=error)
    # A deviation of sqrt(0.2), over the root of five.
    assert errors_of(store, "M5-K128-l2-depthwise") == (pytest.approx(0.2), 4)
