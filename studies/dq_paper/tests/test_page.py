"""What is written of results: every number comes from them, and every verdict turns with them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from studies.dq_paper import ITEMS, SCALES, Outcome, ResultsStore, find_item
from studies.dq_paper.book import Measured, ResultsBook
from studies.dq_paper.comparison import Race, convergence, pairs_of, rate_at_quality, sign_of_change, sign_of_difference
from studies.dq_paper.findings import findings
from studies.dq_paper.findings.page import HEADINGS
from studies.dq_paper.page import cell, render, table, tables

CPU = SCALES["cpu"]
LIKELIHOOD = {
    "nll_nats_per_dim": 2.0,
    "nll_bits_per_dim": 2.9,
    "code_bits_per_dim": 0.9,
    "total_bits_per_dim": 3.8,
}
PICTURE = Image.new("RGB", (40, 20), "red")


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path / "results")


def save(store, item, row, *, seed=0, scale=CPU, curve=None, codes=None, **figures):
    """Keep what a row is said to have found."""
    (declared,) = [declared for declared in find_item(item).rows if declared.name == row]
    if declared.has_scale:
        figures = {"mse_normalized": 0.5, "psnr_db": 20.0} | figures
        if declared.options["likelihood"] != "l2":
            figures = LIKELIHOOD | figures
    curve = curve or {"step": [1000], "mse_normalized": [0.1], "nll_bits_per_dim": [3.0]}
    store.save(declared.experiment(scale, seed), Outcome(figures, codes, curve, PICTURE), seconds=3600)


def save_errors(store, depthwise, shared, row="table3/M5-K128-l2", figure="mse_normalized"):
    """Of two seeds each, whose standard deviation is 2.8 % of their mean, and 2 % the mean's standard error."""
    item, _, name = row.partition("/")
    for quantizer, mean in (("depthwise", depthwise), ("shared", shared)):
        for seed, value in enumerate((0.98 * mean, 1.02 * mean)):
            save(store, item, f"{name}-{quantizer}", seed=seed, **{figure: value})


def pages(store, tmp_path):
    render(store, tmp_path / "docs")
    return [(tmp_path / "docs" / name).read_text() for name in ("reproduction.md", "findings.md")]


def test_spread_is_over_seeds(store):
    save(store, "table3", "M5-K128-l2-depthwise", seed=0, mse_normalized=0.03)
    save(store, "table3", "M5-K128-l2-depthwise", seed=1, mse_normalized=0.05)
    (row,) = [row for row in find_item("table3").rows if row.name == "M5-K128-l2-depthwise"]
    measured = ResultsBook(store).figure(row, CPU, "mse_normalized")
    assert (measured.mean, measured.seeds) == (pytest.approx(0.04), 2)
    assert measured.deviation == pytest.approx(0.02 / 2**0.5)
    assert cell(measured) == "0.040 ± 0.014 (2)"


def test_a_single_seed_has_no_spread():
    assert cell(Measured(0.04)) == "0.04"
    assert cell(None) == ""


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [
        (0.04191, 0.00312, "0.042 ± 0.003 (2)"),
        (0.04191, 0.00112, "0.0419 ± 0.0011 (2)"),
        (123.4, 30.0, "123 ± 30 (2)"),
        (2.188, 0.0, "2.188"),  # the same for all seeds
    ],
)
def test_mean_has_the_digits_that_its_spread_leaves(mean, deviation, text):
    assert cell(Measured(mean, deviation, seeds=2)) == text


def test_pair_has_both_ratios(store):
    save_errors(store, 0.02, 0.08)
    (pair,) = [pair for pair in pairs_of(find_item("table3"), CPU, ResultsBook(store), "mse_normalized") if pair.ratio]
    assert pair.name == "M5-K128-l2"
    assert pair.ratio == pytest.approx(0.25)
    assert pair.paper_ratio == pytest.approx(0.0115 / 0.0552)


def test_one_codebook_is_one_network_for_both_quantizers(store):
    save(store, "table3", "M1-K32-l2-depthwise", mse_normalized=0.1)
    (pair,) = [
        pair for pair in pairs_of(find_item("table3"), CPU, ResultsBook(store), "mse_normalized") if pair.depthwise
    ]
    assert pair.is_same_network
    assert pair.ratio == 1


def test_page_shows_ours_beside_the_papers(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    page, _ = pages(store, tmp_path)
    ours = "| M5-K128-l2 | 0.0200 ± 0.0006 (2) | 0.080 ± 0.002 (2) | 0.25 | lower | 20 | 20 |"
    assert f"{ours} 0.0115 | 0.0552 | 0.208 | yes |" in page
    assert "4 results, 4.0 hours in all" in page
    assert "Trained for 1.28 epochs; a run with its measurement took, in the median" in page
    assert "median: l2 3600 s." in page
    assert "- no results at scale `gpu` or `miniature`" in page


@pytest.mark.parametrize(
    ("depthwise", "side", "counted"),
    [
        (
            0.02,
            "lower | 20",
            "in 1 of 1 rows that both quantizers were run for, clearly so in 1; clearly the other way",
        ),
        (
            0.12,
            "higher | 20",
            "in 0 of 1 rows that both quantizers were run for, clearly so in 0; clearly the other way",
        ),
        (0.079, "lower, not clearly", "in 1 of 1 rows that both quantizers were run for, clearly so in 0; clearly the"),
    ],
)
def test_page_tells_of_each_row_who_is_lower_and_counts(depthwise, side, counted, store, tmp_path):
    save_errors(store, depthwise, 0.08)
    page, _ = pages(store, tmp_path)
    (row,) = [line for line in page.splitlines() if line.startswith("| M5-K128-l2 | 0")]
    assert f"| {side}" in row
    assert f"Depthwise is the lower {counted}" in page
    assert f"way round in {int(depthwise == 0.12)}. Of 1 that the paper has too, {int(depthwise < 0.1)} have" in page
    assert row.endswith(f"| {'yes' if depthwise < 0.1 else 'no'} |")


def test_entropy_is_claimed_to_be_higher(store, tmp_path):
    save_errors(store, 6.0, 4.0, figure="mean_entropy_nats", row="decoupling/M10-K512-ce")
    page, _ = pages(store, tmp_path)
    assert "Depthwise is the higher in 1 of 1 rows that both quantizers were run for, clearly so in 1" in page


def test_a_loss_is_compared_between_networks_that_were_trained_on_it(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    save_errors(store, 3.0, 2.0, figure="nll_nats_per_dim", row="table3/M5-K128-ce")
    page, found = pages(store, tmp_path)
    errors, nats = page.split("**L2, normalised space**")[1].split("**image given codes, nats/dim**")[:2]
    assert "M5-K128-l2" in errors
    assert "M5-K128-ce" not in errors
    assert "M5-K128-l2" not in nats.split("Depthwise is")[0]
    assert found.index("## What held up") < found.index("### Depthwise codes reconstruct better")
    assert found.index("## What did not") < found.index("### Depthwise codes explain images better")


def test_tables_hold_the_rows_asked_for_and_what_they_are_compared_with(store):
    save_errors(store, 0.02, 0.08)
    save_errors(store, 0.03, 0.09, row="table3/M3-K128-l2")
    table3 = find_item("table3")
    chosen = [(table3, row) for row in table3.rows if row.name == "M5-K128-l2-shared"]
    text = tables(chosen, "cpu", store)
    assert "| M5-K128-l2 | 0.0200 ± 0.0006 (2) | 0.080 ± 0.002 (2) | 0.25 |" in text
    assert "M3-K128" not in text


def test_likelihood_is_shown_with_the_cost_of_the_codes(store, tmp_path):
    bits = {"nll_bits_per_dim": 3.0, "code_bits_per_dim": 0.9375, "total_bits_per_dim": 3.9375}
    save(store, "table1", "cifar10-depthwise", nll_nats_per_dim=2.08, **bits)
    save(store, "table4", "K128x256-mix-depthwise", nll_nats_per_dim=2.09, **(bits | {"code_bits_per_dim": 1.015625}))
    page, found = pages(store, tmp_path)
    assert "| cifar10-depthwise | 2.08 | 3 | 0.9375 | 3.938 | 2.52 | 3.64 | 4.57 |" in page
    # 2.52 nats are 3.64 bits; with 2,880 bits of codes, for 3,072 dims, 4.57.
    assert "it is 3.64 bits/dim" in found
    assert "is 3.92 to 4.57 bits/dim" in found
    assert "Ours at scale cpu: 2.08 nats/dim for the image" in found


def test_rows_that_were_not_run_are_named(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    page, _ = pages(store, tmp_path)
    assert "<summary>46 of 48 rows not run</summary>" in page
    assert "M1-K32-l2-depthwise, M1-K32-l2-shared" in page


def test_every_figure_of_the_page_is_written(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    written = render(store, tmp_path / "docs")
    assert all(file.is_file() for file in written)
    page = (tmp_path / "docs" / "reproduction.md").read_text()
    assert {file.name for file in written if file.suffix == ".png"} == {
        line.split("(img/")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")
    }


def test_scales_are_kept_apart(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    save(store, "table3", "M5-K128-l2-depthwise", scale=SCALES["miniature"], mse_normalized=0.5)
    page, _ = pages(store, tmp_path)
    assert "scale cpu" in page
    assert "| M5-K128-l2 | 0.5 |  |  |  | 20 |  | 0.0115 |" in page


def test_a_claim_holds_or_not_as_the_results_say(store):
    save_errors(store, 0.02, 0.08)
    claim = "### Depthwise codes reconstruct better than as many shared ones"
    held = findings(ResultsBook(store), ["cpu"])
    assert held.index("## What held up") < held.index(claim)
    assert "It is 0.25 times that of shared codes" in held
    save_errors(store, 0.12, 0.08)
    failed = findings(ResultsBook(store), ["cpu"])
    assert failed.index("## What did not") < failed.index(claim)
    assert "## What held up\n" not in failed


def test_a_claim_about_many_rows_may_hold_in_part(store):
    save_errors(store, 0.02, 0.08)
    save_errors(store, 0.12, 0.08, row="table3/M3-K128-l2")
    text = findings(ResultsBook(store), ["cpu"])
    assert "## What held up in part" in text
    assert "the squared error is lower in 1 of 2 rows, clearly so in 1, clearly not so in 1" in text


def test_capacity_is_compared_at_equal_bits(store):
    # On one line through log error against bits, neither M nor K matters.
    bits = {"M1-K32": 5, "M1-K128": 7, "M1-K512": 9, "M10-K128": 70, "M5-K32": 25, "M3-K128": 21, "M3-K512": 27}
    for row, count in bits.items():
        save(store, "table3", f"{row}-l2-depthwise", mse_normalized=0.95**count)
    text = findings(ResultsBook(store), ["cpu"])
    assert "the three err by 0.2774 and the five by 0.2774, +0%" in text  # 0.95^25
    assert text.index("## What our runs cannot tell") < text.index("### At equal bits, more small codebooks")


def test_figure_4_is_told_by_what_each_level_alone_decodes_to(store):
    save(store, "table4", "K256x128-l2-depthwise", psnr_db=25.0, level_alone_psnr_db=[20.0, 9.0])
    text = findings(ResultsBook(store), ["cpu"])
    assert "K256x128-l2-depthwise 0: 25.0, 20.0, 9.0 dB" in text
    assert text.index("## What held up") < text.index("### The coarse level holds the structure")


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


def errors_of(store, row, item="table3", figure="mse_normalized"):
    (declared,) = [declared for declared in find_item(item).rows if declared.name == row]
    found = ResultsBook(store).figure(declared, CPU, figure)
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
    assert errors_of(store, "M1-K128-ce-depthwise", figure="nll_nats_per_dim") == (pytest.approx(0.02**0.5), 1)


def test_many_seeds_go_by_their_own_spread(store):
    for seed, error in enumerate((1.0, 1.0, 1.0, 1.0, 2.0)):
        save(store, "table3", "M5-K128-l2-depthwise", seed=seed, mse_normalized=error)
    # A deviation of sqrt(0.2), over the root of five.
    assert errors_of(store, "M5-K128-l2-depthwise") == (pytest.approx(0.2), 4)


@pytest.mark.parametrize(("reached_at", "answer"), [(200, 1), (300, 0), (400, -1), (None, -1)])
def test_a_race_is_decided_as_finely_as_it_is_measured(reached_at, answer):
    race = Race(name="", figure="", goal=0.1, goal_at=1000, reached_at=reached_at, every=100, is_goal_at_end=True)
    assert race.is_within(0.25) == answer


@pytest.mark.parametrize(("reached_at", "answer"), [(900, 1), (1000, 0), (None, -1)])
def test_a_race_is_won_by_fewer_steps(reached_at, answer):
    race = Race(name="", figure="", goal=0.1, goal_at=1000, reached_at=reached_at, every=100, is_goal_at_end=True)
    assert race.is_sooner == answer


def test_a_difference_too_small_to_tell_is_undecided(store):
    save_errors(store, 0.0795, 0.08)
    text = findings(ResultsBook(store), ["cpu"])
    assert text.index("## What our runs cannot tell") < text.index("### Depthwise codes reconstruct better")


def test_what_has_no_scale_is_shown_once(store, tmp_path):
    spread = {"mean": 0.9, "deviation": 0.01}
    names = ("mse", "mse_standardized", "entropy_nats", "entropy_miller_madow_nats")
    figures = {"held_out": dict.fromkeys(names, spread), "training": dict.fromkeys(names, spread), "seeds": 10}
    save(store, "table2", "lite0-320-K32-row", **figures)
    page, found = pages(store, tmp_path)
    assert page.count("## Table 2") == 1
    assert "| lite0-320-K32-row | 0.900 ± 0.010 |" in page
    assert "- scale" not in page
    assert "### Codebooks by channel" not in found  # there is no partner yet


@pytest.mark.parametrize("item", [item for item in ITEMS if find_item(item).rows[0].kind == "training"])
def test_any_single_row_can_be_rendered(item, store, tmp_path):
    bits = {"nll_nats_per_dim": 2.0, "nll_bits_per_dim": 3.0, "code_bits_per_dim": 1.0, "total_bits_per_dim": 4.0}
    save(store, item, find_item(item).rows[0].name, mse_normalized=0.1, psnr_db=20.0, code_bits_per_pixel=3.0, **bits)
    page, _ = pages(store, tmp_path)
    assert f"## {find_item(item).title}" in page


def test_race_ends_at_the_first_measurement_as_good_as_the_others_best(store):
    steps = [100, 200, 300]
    save(store, "table3", "M5-K128-l2-depthwise", curve={"step": steps, "mse_normalized": [0.3, 0.1, 0.05]})
    save(store, "table3", "M5-K128-l2-shared", curve={"step": steps, "mse_normalized": [0.4, 0.12, 0.15]})
    (race,) = convergence(find_item("convergence"), CPU, ResultsBook(store))
    assert (race.name, race.goal, race.goal_at, race.reached_at, race.every) == ("M5-K128-l2", 0.12, 200, 200, 100)


def test_codecs_are_compared_at_the_same_psnr(store):
    for quality, (rate, psnr) in {10: (1.0, 20.0), 40: (3.0, 30.0)}.items():
        save(store, "rate_distortion", f"jxl-mosaic-q{quality}", bits_per_pixel=rate, psnr_db=psnr)
    book, item = ResultsBook(store), find_item("rate_distortion")
    assert rate_at_quality(item, book, CPU, "jxl-mosaic", 25.0) == pytest.approx(2.0)
    assert rate_at_quality(item, book, CPU, "jxl-mosaic", 35.0) is None
    assert rate_at_quality(item, book, CPU, "jxl-files", 25.0) is None


def test_results_of_no_declared_row_are_named_and_left_out(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    (row,) = [row for row in find_item("table3").rows if row.name == "M5-K128-l2-depthwise"]
    experiment = row.experiment(CPU, 0)
    object.__setattr__(experiment, "data", "mnist")  # no row pairs this model with it
    curve = {"step": [1], "mse_normalized": [7.0]}
    store.save(experiment, Outcome({"mse_normalized": 7.0, "psnr_db": 20.0}, curve=curve), seconds=1)
    with pytest.warns(UserWarning, match=r"training-mnist.*must be of a row that is declared; .* left out; delete it"):
        page, _ = pages(store, tmp_path)
    assert "4 results" in page


def test_a_damaged_result_is_named_and_left_out(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    victim = next(file for file in store.folder.glob("*.json") if "shared-M5-K128-seed0" in file.name)
    content = json.loads(victim.read_text())
    content["experiment"]["training"]["steps"] = 7
    victim.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=f"{victim.name} must hold the result that its name says"):
        page, _ = pages(store, tmp_path)
    assert "| M5-K128-l2 | 0.0200 ± 0.0006 (2) | 0.0816 | 0.245 |" in page


def test_render_without_results_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match=r"must hold results; got none; run python -m"):
        render(store, tmp_path)


def test_table_is_markdown():
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


SQUARED = "mse_normalized"


def table3(**errors):
    """Squared errors of rows of Table 3, written M5_K32_depthwise."""
    return {
        f"table3/{name.replace('_', '-', 1).replace('_', '-l2-')}": {SQUARED: error} for name, error in errors.items()
    }


def densities(**found):
    """What rows of Table 2 found, written K32_row: the same number for each figure."""
    names = ("mse", "mse_standardized", "entropy_nats", "entropy_miller_madow_nats")
    return {
        f"table2/lite0-320-{name.replace('_', '-')}": {
            "held_out": {each: {"mean": value, "deviation": 0.01} for each in names},
            "training": {each: {"mean": value, "deviation": 0.01} for each in names},
            "seeds": 10,
        }
        for name, value in found.items()
    }


def information(depthwise, shared, name="mean_mutual_information_nats"):
    return {
        f"decoupling/M5-K128-l2-{word}": {name: value} for word, value in (("depthwise", depthwise), ("shared", shared))
    }


def totals(grown, once, twice):
    names = ("from-16-to-32", "from-scratch-1x", "from-scratch-2x")
    return {
        f"progressive/{name}": {"total_bits_per_dim": value}
        for name, value in zip(names, (grown, once, twice), strict=True)
    }


def shared_rows(one, ten):
    return table3(M1_K128_shared=one, M10_K128_shared=ten, M5_K128_shared=0.1) | {
        "equal_bits/shared-wide": {SQUARED: 0.1}
    }


GROWING = {"M3_K32_shared": 1.0, "M5_K32_shared": 1.0, "M10_K32_shared": 1.0, "M5_K32_depthwise": 0.5}
CLAIMS = {
    "The shared quantizer gains from more codebooks": {
        "held": shared_rows(1.0, 0.5),
        "failed": shared_rows(0.5, 1.0),
        "undecided": shared_rows(1.0, 0.999),
    },
    "The gain over shared codes grows with the number of codebooks": {
        "held": table3(M3_K32_depthwise=0.8, M10_K32_depthwise=0.2, **GROWING),
        "failed": table3(M3_K32_depthwise=0.2, M10_K32_depthwise=0.8, **GROWING),
        "undecided": table3(M3_K32_depthwise=0.5, M10_K32_depthwise=0.5, **GROWING),
    },
    "The number of codebooks matters more than their size": {
        "held": table3(M1_K32_depthwise=1.0, M1_K512_depthwise=0.9, M1_K128_depthwise=0.95, M10_K128_depthwise=0.1),
        "failed": table3(M1_K32_depthwise=1.0, M1_K512_depthwise=0.1, M1_K128_depthwise=0.95, M10_K128_depthwise=0.9),
    },
    "The loss of all K converges as M grows": {
        "held": table3(M1_K32_depthwise=1.0, M1_K512_depthwise=0.1, M10_K32_depthwise=0.1, M10_K512_depthwise=0.1),
        "failed": table3(M1_K32_depthwise=1.0, M1_K512_depthwise=1.0, M10_K32_depthwise=0.1, M10_K512_depthwise=0.01),
    },
    "Depthwise codebooks share less information than shared ones": {
        "held": information(0.1, 3.0),
        "failed": information(3.0, 0.1),
        "undecided": information(3.0, 3.001),
    },
    "A depthwise code says more than a shared one: its entropy is higher": {
        "held": information(4.8, 2.0, "mean_entropy_nats"),
        "failed": information(2.0, 4.8, "mean_entropy_nats"),
        "undecided": information(4.8, 4.8001, "mean_entropy_nats"),
    },
    "MNIST: depthwise reconstructs better than shared": {
        "held": {"mnist/depthwise": {SQUARED: 0.01}, "mnist/shared": {SQUARED: 0.1}},
        "failed": {"mnist/depthwise": {SQUARED: 0.1}, "mnist/shared": {SQUARED: 0.01}},
    },
    "Codebooks by channel describe features with less error than codebooks by row": {
        "held": densities(K32_row=0.9, K32_channel=0.8),
        "failed": densities(K32_row=0.8, K32_channel=0.9),
        "undecided": densities(K32_row=0.8, K32_channel=0.801),
    },
    "Codebooks by channel have the higher entropy": {
        "held": densities(K32_row=0.8, K32_channel=0.9),
        "failed": densities(K32_row=0.9, K32_channel=0.8),
    },
    "The error grows from K = 32 to K = 1024 (Table 2)": {
        "held": densities(K32_row=0.8, K1024_row=0.9),
        "failed": densities(K32_row=0.9, K1024_row=0.8),
    },
    "One model through growing image sizes": {"new": totals(5.0, 6.0, 4.0)},
}


def save_twice(store, rows):
    """Two seeds of each row, half a percent to either side, so that every spread is known."""
    for place, figures in rows.items():
        item, _, row = place.partition("/")
        (declared,) = [declared for declared in find_item(item).rows if declared.name == row]
        for seed in (0, 1) if declared.has_scale else (0,):
            factor = (0.995, 1.005)[seed] if declared.has_scale else 1
            varied = {name: value * factor for name, value in figures.items()} if factor != 1 else figures
            save(store, item, row, seed=seed, **varied)


@pytest.mark.parametrize(("claim", "verdict"), [(claim, verdict) for claim in CLAIMS for verdict in CLAIMS[claim]])
def test_each_claim_goes_where_the_results_put_it(claim, verdict, store):
    save_twice(store, CLAIMS[claim][verdict])
    text = findings(ResultsBook(store), ["cpu"])
    headings = {section.split("\n")[0]: section for section in text.split("\n## ")[1:]}
    assert f"### {claim}" in headings[HEADINGS[verdict]]


def test_growing_is_compared_with_both_ways_from_scratch(store):
    save_twice(store, totals(5.0, 6.0, 4.0))
    text = findings(ResultsBook(store), ["cpu"])
    assert "ends at 5.000 bits/dim in all" in text
    assert "Growing is clearly better than the former and clearly worse than the latter" in text


def test_other_quantizers_are_ranked_after_as_many_steps_each(store):
    errors = {"residual": 0.3, "scalar": 0.1, "residual3x": 0.05, "scalar3x": 0.2}
    save_twice(store, {f"equal_bits/{name}": {SQUARED: error} for name, error in errors.items()})
    text = findings(ResultsBook(store), ["cpu"])
    ranked = "Squared error, lowest first: scalar 0.1000, residual 0.3000. Clearly above scalar: residual"
    assert f"after 1,000 steps\n\n{ranked}" in text
    assert "after 3,000 steps\n\nSquared error, lowest first: residual3x 0.0500, scalar3x 0.2000. Clearly above" in text


def test_codes_stand_beside_what_codecs_need_for_their_psnr(store):
    for quality, (rate, psnr) in {10: (1.0, 20.0), 40: (3.0, 30.0)}.items():
        save(store, "rate_distortion", f"webp-mosaic-q{quality}", bits_per_pixel=rate, psnr_db=psnr)
    save(store, "rate_distortion", "depthwise-M1", psnr_db=25.0, code_bits_per_pixel=0.44)
    text = findings(ResultsBook(store), ["cpu"])
    assert "depthwise-M1 (25.0 dB) 0.44, webp 2.00." in text


def test_papers_own_figures_need_no_run(store):
    save(store, "rate_distortion", "jpeg-mosaic-q5", bits_per_pixel=1.0, psnr_db=20.0)
    text = findings(ResultsBook(store), ["cpu"])
    # Spearman's correlation by scipy.stats.spearmanr.
    assert "mix -0.77 as captioned, -0.94 the other way round" in text
    assert "3.07 and 4.96 bits/dim" in text
    assert "44%, 63%, 82%, 82%, 86% fewer" in text


def test_codecs_have_a_table(store, tmp_path):
    save(store, "rate_distortion", "jpeg-mosaic-q5", bits_per_pixel=0.55, psnr_db=20.5)
    page, _ = pages(store, tmp_path)
    assert "| jpeg-mosaic-q5 | 0.55 | 20.5 |" in page


def test_rates_of_rows_asked_for_are_looked_up_among_all(store):
    for quality, (rate, psnr) in {10: (1.0, 20.0), 40: (3.0, 30.0)}.items():
        save(store, "rate_distortion", f"jxl-mosaic-q{quality}", bits_per_pixel=rate, psnr_db=psnr)
    save(store, "rate_distortion", "residual-M3", psnr_db=25.0, code_bits_per_pixel=1.3)
    item = find_item("rate_distortion")
    text = tables([(item, row) for row in item.rows if row.name == "residual-M3"], "cpu", store)
    assert "| residual-M3 | 1.3 | 25 | 2 |  |" in text
    assert "jxl-mosaic" not in text


def test_committed_pages_are_what_the_committed_results_say(tmp_path):
    """Of this repository; with every file in results/ whole, and of a row that is declared."""
    study, root = Path(__file__).parents[1], Path(__file__).parents[3]
    render(ResultsStore(study / "results"), tmp_path)
    for page in ("reproduction.md", "findings.md"):
        assert (tmp_path / page).read_text() == (root / "docs" / page).read_text(), (
            "run python -m studies.dq_paper --render"
        )
