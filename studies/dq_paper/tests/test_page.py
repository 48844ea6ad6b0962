"""What is written of results: every number comes from them."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from depthq.analysis import CodeCounts, summarize_codes
from depthq.codes import Codes
from studies.dq_paper import ITEMS, SCALES, Outcome, ResultsStore, find_item
from studies.dq_paper.comparison import capacity, joint_entropy, share_used
from studies.dq_paper.page import render, tables
from studies.dq_paper.row_results import DeclaredResults
from studies.dq_paper.tests.saved import CPU, save, save_errors

COMMITTED = Path(__file__).parents[1] / "results"


def pages(store, tmp_path):
    render(store, tmp_path / "docs")
    return [(tmp_path / "docs" / name).read_text() for name in ("reproduction.md", "findings.md")]


def test_page_shows_ours_beside_the_papers(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    page, _ = pages(store, tmp_path)
    ours = "| M5-K128-l2 | 0.0200 ± 0.0006 (2) | 0.080 ± 0.002 (2) | 0.25 | lower | 20 | 20 |"
    assert f"{ours} 0.0115 | 0.0552 | 0.208 | yes |" in page
    assert "4 results, 4.0 hours in all" in page
    assert "Trained for 1.28 epochs; a run with its measurement took, in the median" in page
    assert "median: l2 3600 s." in page
    assert "- no results at scale `cpu-long` or `gpu` or `miniature`" in page


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
    save_errors(store, 6.0, 4.0, metric="mean_entropy_nats", row="decoupling/M10-K512-ce")
    page, _ = pages(store, tmp_path)
    assert "Depthwise is the higher in 1 of 1 rows that both quantizers were run for, clearly so in 1" in page


def test_a_loss_is_compared_between_networks_that_were_trained_on_it(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    save_errors(store, 3.0, 2.0, metric="nll_nats_per_dim", row="table3/M5-K128-ce")
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


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ([3.0, 2.8, 2.85], "cifar10-depthwise, 2.8 bits/dim at step 200, 2.85 at the end."),
        ([3.0, 2.8, 2.81], "none."),
    ],
)
def test_a_row_that_was_better_before_its_end_is_named(store, tmp_path, losses, told):
    curve = {"step": [100, 200, 300], "nll_bits_per_dim": losses}
    save(store, "table1", "cifar10-depthwise", curve=curve)
    page, _ = pages(store, tmp_path)
    assert f"Better on test images before their end, image given codes, by over 1 %: {told}" in page


def test_every_row_of_every_table_has_the_cells_of_its_head(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    save(store, "larger_images", "imagenet256-sample-depthwise")  # beside rows that were not run
    for page in (*pages(store, tmp_path), *(file.read_text() for file in (COMMITTED.parents[2] / "docs").glob("*.md"))):
        for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
            assert len({re.sub(r"\\\||`[^`]*`", "", line).count("|") for line in block.splitlines()}) == 1, block


def test_rows_that_were_not_run_are_named(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    page, _ = pages(store, tmp_path)
    assert "<summary>46 of 48 rows not run</summary>" in page
    assert "M1-K32-l2-depthwise, M1-K32-l2-shared" in page
    assert "What runs them: `python -m studies.dq_paper table3 --scale cpu`." in page
    save(store, "table1", "cifar10-depthwise")
    page, _ = pages(store, tmp_path)
    given = "imagenet32=FOLDER imagenet64=FOLDER imagenet64-sample=FOLDER"  # CIFAR-10 is on the hub
    assert f"What runs them: `python -m studies.dq_paper table1 --scale cpu --data {given}`." in page


def test_the_page_says_of_each_item_why_rows_were_not_run():
    declared = DeclaredResults(ResultsStore(COMMITTED))
    for item in map(find_item, ITEMS):
        missing = [row.name for row in item.rows if not declared.at(item.scale or "cpu").of(row)]
        assert bool(item.not_run) == bool(missing), (item.name, missing)


def test_every_picture_of_the_page_is_written(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    written = render(store, tmp_path / "docs")
    assert all(file.is_file() for file in written)
    shown = [
        line.split("(img/")[1].rstrip(")")
        for page in ("reproduction.md", "findings.md")
        for line in (tmp_path / "docs" / page).read_text().splitlines()
        if line.startswith("![")
    ]
    assert {file.name for file in written if file.suffix == ".png"} == set(shown)


def test_scales_are_kept_apart(store, tmp_path):
    save_errors(store, 0.02, 0.08)
    save(store, "table3", "M5-K128-l2-depthwise", scale=SCALES["miniature"], mse_normalized=0.5)
    page, _ = pages(store, tmp_path)
    assert "scale cpu" in page
    assert "| M5-K128-l2 | 0.5 |  |  |  | 20 |  | 0.0115 |" in page


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
    scale = SCALES[find_item(item).scale or "cpu"]
    name = find_item(item).rows[0].name
    save(store, item, name, scale=scale, mse_normalized=0.1, psnr_db=20.0, code_bits_per_pixel=3.0, **bits)
    page, _ = pages(store, tmp_path)
    assert f"## {find_item(item).title}" in page


def test_a_scale_of_its_own_shows_its_item_alone_beside_the_shorter_one(store, tmp_path):
    for scale, depthwise in (("cpu", 0.04), ("cpu-long", 0.02)):
        for row, error in (("M5-K128-l2-depthwise", depthwise), ("M5-K128-l2-shared", 0.1)):
            save(store, "length", row, scale=SCALES[scale], mse_normalized=error, mean_entropy_nats=4.0)
    page, _ = pages(store, tmp_path)
    assert page.count(", scale cpu-long\n") == 1
    assert "| row | L2, 1,000 steps | L2, 10,000 steps |" in page
    assert "| M5-K128-l2-depthwise | 0.04 | 0.02 | 4 | 4 |" in page
    assert "| M5-K128-l2 | 0.4 | 0.2 | 0.208 |" in page  # Table 3 has 0.0115 / 0.0552
    assert (tmp_path / "docs/img/reproduction-length-cpu-long.png").is_file()


def test_capacity_that_is_used_is_that_of_two_codebooks_if_the_third_repeats_one(store):
    first, second = torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1], [0, 1]])
    codes = Codes((torch.stack([first, first, second])[None],), ((2, 2, 2),))
    summary = summarize_codes(CodeCounts(codes.codebook_sizes).update(codes))
    save(store, "capacity", "M3-K128-l2-shared", codes=asdict(summary), mse_normalized=0.1)
    (result,) = DeclaredResults(store).all()
    assert joint_entropy(result) == pytest.approx((2 * math.log(2), 2 * math.log(2)), abs=1e-4)
    assert capacity(result) == pytest.approx(3 * math.log(2))
    assert share_used(result) == pytest.approx(2 / 3, abs=1e-4)
    assert share_used(None) is None


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
