"""What is written of results: every number comes from them, and every verdict turns with them."""

import json

import pytest
from PIL import Image

from depthq.reproduce import ITEMS, SCALES, Outcome, ResultsStore, find_item
from depthq.reproduce.book import Measured, ResultsBook, Spread
from depthq.reproduce.comparison import (
    Race,
    convergence,
    pairs_of,
    rate_at_quality,
    sign_of_change,
    sign_of_difference,
)
from depthq.reproduce.findings import findings
from depthq.reproduce.page import cell, render, table, tables

CPU = SCALES["cpu"]
PICTURE = Image.new("RGB", (40, 20), "red")


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path / "results")


def save(store, item, row, *, seed=0, scale=CPU, curve=None, codes=None, **figures):
    """Keep what a row is said to have found."""
    (declared,) = [declared for declared in find_item(item).rows if declared.name == row]
    if declared.has_scale:
        figures = {"mse_normalized": 0.5, "psnr_db": 20.0} | figures
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
    assert measured == Measured(pytest.approx(0.04), pytest.approx(0.02 / 2**0.5), 2)
    assert cell(measured) == "0.04 ± 0.01 (2)"


def test_a_single_seed_has_no_spread():
    assert cell(Measured.of([0.04])) == "0.04"
    assert cell(None) == ""


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
    assert "| M5-K128-l2 | 0.02 ± 0.0006 (2) | 0.08 ± 0.002 (2) | 0.25 | 0.0115 | 0.0552 | 0.208 |" in page
    assert "4 results, 4.0 hours in all" in page
    assert "Trained for 1.28 epochs; a run with its measurement took 3600 s in the middle, 3600 s at most." in page


@pytest.mark.parametrize(
    ("depthwise", "counted"),
    [
        (0.02, "the lower in 1 of 1 rows that both quantizers were run for; of 1 that the paper has too, 1 agree"),
        (0.12, "the lower in 0 of 1 rows that both quantizers were run for, the other way round in 1; of 1 that"),
        (0.079, "the lower in 0 of 1 rows that both quantizers were run for, too close to tell in 1; of 1 that"),
    ],
)
def test_page_counts_rows_by_who_is_lower(depthwise, counted, store, tmp_path):
    save_errors(store, depthwise, 0.08)
    page, _ = pages(store, tmp_path)
    assert f"Depthwise is {counted}" in page


def test_entropy_is_claimed_to_be_higher(store, tmp_path):
    save_errors(store, 6.0, 4.0, figure="mean_entropy_nats", row="decoupling/M10-K512-l2")
    page, _ = pages(store, tmp_path)
    assert "Depthwise is the higher in 1 of 1 rows that both quantizers were run for; of 1 that the paper has" in page


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
    assert "| M5-K128-l2 | 0.02 ± 0.0006 (2) | 0.08 ± 0.002 (2) | 0.25 |" in text
    assert "M3-K128" not in text


def test_likelihood_is_shown_with_the_cost_of_the_codes(store, tmp_path):
    bits = {"nll_bits_per_dim": 3.0, "code_bits_per_dim": 0.9375, "total_bits_per_dim": 3.9375}
    save(store, "table1", "cifar10-depthwise", nll_nats_per_dim=2.08, **bits)
    save(store, "table4", "K128x256-mix-depthwise", nll_nats_per_dim=2.09, **(bits | {"code_bits_per_dim": 1.015625}))
    page, found = pages(store, tmp_path)
    assert "| cifar10-depthwise | 2.08 | 3 | 0.9375 | 3.938 |" in page
    # 2.52 nats are 3.64 bits; with the codes 4.65.
    assert "it is 3.64 bits/dim" in found
    assert "is 3.92 to 4.65 bits/dim" in found


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
    assert "| M5-K128-l2 | 0.5 |  |  | 0.0115 |" in page


def test_a_claim_holds_or_not_as_the_results_say(store):
    save_errors(store, 0.02, 0.08)
    claim = "### Depthwise codes reconstruct better than as many shared ones"
    held = findings(ResultsBook(store), ["cpu"])
    assert held.index("## What held up") < held.index(claim)
    assert "0.25 times that of shared ones" in held
    save_errors(store, 0.12, 0.08)
    failed = findings(ResultsBook(store), ["cpu"])
    assert failed.index("## What did not") < failed.index(claim)
    assert "## What held up\n" not in failed


def test_a_claim_about_many_rows_may_hold_in_part(store):
    save_errors(store, 0.02, 0.08)
    save_errors(store, 0.12, 0.08, row="table3/M3-K128-l2")
    text = findings(ResultsBook(store), ["cpu"])
    assert "## What held up in part" in text
    assert "In 1 of 2 rows" in text


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
    assert "K256x128-l2-depthwise: 25.0, 20.0, 9.0 dB" in text
    assert text.index("## What held up") < text.index("### The coarse level holds the structure")


@pytest.mark.parametrize(
    ("a", "b", "sign"),
    [
        # Of one seed each: 2.23 deviations of 0.05, of both: 0.15 (Student's t of 10 degrees of freedom).
        (Measured(0.9, None, 1), Measured(1.0, None, 1), 0),
        (Measured(0.83, None, 1), Measured(1.0, None, 1), -1),
        (Measured(1.0, 1e-9, 2), Measured(0.9, 1e-9, 2), 0),  # two seeds say little of the deviation: 0.11
        (Measured(1.0, None, 2), Measured(0.87, None, 2), 1),
        # Of ten: 2.26 deviations of 0.01, of both, over the root of ten: 0.0101.
        (Measured(1.0, 0.01, 10), Measured(0.98, 0.01, 10), 1),
        (Measured(1.0, 0.01, 10), Measured(0.991, 0.01, 10), 0),
    ],
)
def test_differences_within_the_spread_of_runs_do_not_count(a, b, sign):
    assert sign_of_difference(a, b, Spread(0.05, degrees_of_freedom=10)) == sign


def test_nothing_is_clear_of_few_seeds_whose_spread_is_not_known():
    assert sign_of_difference(Measured(0.1, None, 1), Measured(1.0, None, 1), None) == 0
    assert sign_of_difference(Measured(0.1, 0.01, 10), Measured(1.0, 0.01, 10), None) == -1


def test_ratios_are_compared_by_the_spread_of_all_they_are_made_of():
    def fraction(numerator):
        return Measured(numerator, None, 1), Measured(1.0, None, 1)

    # 2.23 deviations of 0.05, of all four: 0.223 in the logarithm, so 20 % less.
    spread = Spread(0.05, degrees_of_freedom=10)
    assert sign_of_change(fraction(0.79), fraction(1.0), spread) == -1
    assert sign_of_change(fraction(0.81), fraction(1.0), spread) == 0


def test_spread_of_a_run_is_that_of_all_rows_with_several_seeds(store):
    for row, errors in {"M5-K128-l2-depthwise": (0.9, 1.1), "M5-K128-l2-shared": (2.0, 2.0)}.items():
        for seed, error in enumerate(errors):
            save(store, "table3", row, seed=seed, mse_normalized=error)
    # 0.2 / sqrt(2) of 1, and 0 of 2.
    assert ResultsBook(store).spread("mse_normalized", CPU, "l2") == Spread(pytest.approx(0.1), 2)
    assert ResultsBook(store).spread("mse_normalized", CPU, "categorical") is None


@pytest.mark.parametrize(("reached_at", "answer"), [(200, 1), (300, 0), (400, -1), (None, -1)])
def test_a_race_is_decided_as_finely_as_it_is_measured(reached_at, answer):
    race = Race(name="", figure="", goal=0.1, goal_at=1000, reached_at=reached_at, every=100, is_goal_at_end=True)
    assert race.is_within(0.25) == answer


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
    assert "| lite0-320-K32-row | 0.9 ± 0.01 |" in page
    assert "- scale" not in page
    assert "By channel" not in found  # there is no partner yet


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
    store.save(experiment, Outcome({"mse_normalized": 7.0, "psnr_db": 20.0}), seconds=1)
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
    assert "| M5-K128-l2 | 0.02 ± 0.0006 (2) | 0.0816 | 0.245 | 0.0115 |" in page


def test_render_without_results_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match=r"must hold results; got none; run some rows"):
        render(store, tmp_path)


def test_table_is_markdown():
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
