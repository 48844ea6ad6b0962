"""What rows say beside each other, and when a difference counts."""

from dataclasses import replace

import pytest

from studies.dq_paper import find_item
from studies.dq_paper.comparison import (
    StepsToMatch,
    codec_rows,
    pairs_of,
    rate_at_quality,
    sign_of_change,
    sign_of_difference,
    steps_to_match,
    with_partners,
)
from studies.dq_paper.row_results import Measured
from studies.dq_paper.tests.saved import at_cpu, save, save_errors


def test_pair_has_both_ratios(store):
    save_errors(store, 0.02, 0.08)
    (pair,) = [pair for pair in pairs_of(find_item("table3"), at_cpu(store), "mse_normalized") if pair.ratio]
    assert pair.name == "M5-K128-l2"
    assert pair.ratio == pytest.approx(0.25)
    assert pair.paper_ratio == pytest.approx(0.0115 / 0.0552)


def test_rows_pair_by_what_they_declare_and_not_by_their_names(store):
    item = find_item("table3")
    renamed = replace(item, rows=tuple(replace(row, name=f"row {place}") for place, row in enumerate(item.rows)))
    save_errors(store, 0.02, 0.08)
    by_name, by_place = (
        [pair.ratio for pair in pairs_of(each, at_cpu(store), "mse_normalized")] for each in (item, renamed)
    )
    assert by_name == by_place
    assert len(by_name) == 12


def test_partners_are_shown_with_the_rows_asked_for():
    item = find_item("decoupling")
    chosen = [row for row in item.rows if row.name == "M5-K128-l2-3x-shared"]
    assert [row.name for row in with_partners(item, chosen)] == ["M5-K128-l2-3x-depthwise", "M5-K128-l2-3x-shared"]
    codecs = [row for row in find_item("rate_distortion").rows if row.name == "jpeg-files-q5"]
    assert with_partners(find_item("rate_distortion"), codecs) == codecs


def test_one_codebook_is_one_network_for_both_quantizers(store):
    save(store, "table3", "M1-K32-l2-depthwise", mse_normalized=0.1)
    (pair,) = [pair for pair in pairs_of(find_item("table3"), at_cpu(store), "mse_normalized") if pair.depthwise]
    assert pair.is_same_network
    assert pair.ratio == 1


def measured(mean, error, freedom=10, source="runs"):
    return Measured(mean, error=error, degrees_of_freedom=freedom, source=source)


@pytest.mark.parametrize(
    ("a", "b", "sign"),
    [
        # 2.23 errors of both together (Student's t of 10 degrees of freedom): 0.158.
        (measured(0.84, 0.05), measured(1.0, 0.05), -1),
        (measured(0.85, 0.05), measured(1.0, 0.05), 0),
        (measured(1.0, 0.05), measured(0.84, 0.05), 1),
        # Two deviations of one degree of freedom each are one of two (Welch and Satterthwaite): 4.30, 0.304.
        (measured(0.69, 0.05, 1, "these"), measured(1.0, 0.05, 1, "those"), -1),
        (measured(0.70, 0.05, 1, "these"), measured(1.0, 0.05, 1, "those"), 0),
        # The same deviation twice stays one of one: 12.7, 0.898.
        (measured(0.11, 0.05, 1), measured(1.0, 0.05, 1), 0),
        (measured(0.10, 0.05, 1), measured(1.0, 0.05, 1), -1),
        (measured(1.0, 0.0), measured(1.0, 0.0), 0),
        (Measured(0.1), measured(1.0, 0.01), 0),  # of one run, and nothing is known of its spread
    ],
)
def test_differences_within_the_spread_of_runs_do_not_count(a, b, sign):
    assert sign_of_difference(a, b) == sign


def test_ratios_are_compared_by_the_spread_of_all_they_are_made_of():
    def fraction(numerator):
        return measured(numerator, 0.05 * numerator), measured(1.0, 0.05)

    # 2.23 errors of 0.05, of all four: 0.223 in the logarithm, so 20 % less.
    assert sign_of_change(fraction(0.79), fraction(1.0)) == -1
    assert sign_of_change(fraction(0.81), fraction(1.0)) == 0


def pair_of_runs(matched_step):
    return StepsToMatch(
        name="", metric="", best=0.1, best_step=1000, matched_step=matched_step, interval=100, is_best_last=True
    )


@pytest.mark.parametrize(("matched_step", "answer"), [(200, 1), (300, 0), (400, -1), (None, -1)])
def test_share_of_steps_is_decided_as_finely_as_it_is_measured(matched_step, answer):
    steps = pair_of_runs(matched_step)
    assert steps.is_within(0.25) == answer


@pytest.mark.parametrize(("matched_step", "answer"), [(900, 1), (1000, 0), (None, -1)])
def test_sooner_is_in_fewer_steps(matched_step, answer):
    steps = pair_of_runs(matched_step)
    assert steps.is_sooner == answer


def test_best_is_matched_at_the_first_measurement_as_good(store):
    steps = [100, 200, 300]
    save(store, "table3", "M5-K128-l2-depthwise", curve={"step": steps, "mse_normalized": [0.3, 0.1, 0.05]})
    save(store, "table3", "M5-K128-l2-shared", curve={"step": steps, "mse_normalized": [0.4, 0.12, 0.15]})
    (found,) = steps_to_match(find_item("convergence"), at_cpu(store))
    assert (found.name, found.best, found.best_step) == ("M5-K128-l2", 0.12, 200)
    assert (found.matched_step, found.interval, found.is_best_last) == (200, 100, False)


def test_codecs_are_compared_at_the_same_psnr(store):
    for quality, (rate, psnr) in {10: (1.0, 20.0), 40: (3.0, 30.0)}.items():
        save(store, "rate_distortion", f"jxl-mosaic-q{quality}", bits_per_pixel=rate, psnr_db=psnr)
    mosaic, files = (codec_rows(find_item("rate_distortion"), "JXL", how) for how in ("mosaic", "files"))
    assert rate_at_quality(mosaic, at_cpu(store), 25.0) == pytest.approx(2.0)
    assert rate_at_quality(mosaic, at_cpu(store), 35.0) is None
    assert rate_at_quality(files, at_cpu(store), 25.0) is None
