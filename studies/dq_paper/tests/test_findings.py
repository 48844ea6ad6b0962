"""Claims go where the results put them: every verdict turns with them."""

import re

import pytest

from studies.dq_paper import SCALES, find_item
from studies.dq_paper.findings import findings
from studies.dq_paper.findings.page import HEADINGS
from studies.dq_paper.row_results import DeclaredResults
from studies.dq_paper.tests.saved import at_cpu, save, save_errors


def test_a_claim_holds_or_not_as_the_results_say(store):
    save_errors(store, 0.02, 0.08)
    claim = "### Depthwise codes reconstruct better than as many shared ones"
    held = findings([at_cpu(store)])
    assert held.index("## What held up") < held.index(claim)
    assert "It is 0.25 times that of shared codes" in held
    save_errors(store, 0.12, 0.08)
    failed = findings([at_cpu(store)])
    assert failed.index("## What did not") < failed.index(claim)
    assert "## What held up\n" not in failed


def test_a_claim_about_many_rows_may_hold_in_part(store):
    save_errors(store, 0.02, 0.08)
    save_errors(store, 0.12, 0.08, row="table3/M3-K128-l2")
    text = findings([at_cpu(store)])
    assert "## What held up in part" in text
    assert "the squared error is lower in 1 of 2 rows, clearly so in 1, clearly not so in 1" in text


def test_capacity_is_compared_at_equal_bits(store):
    # On one line through log error against bits, neither M nor K matters.
    bits = {"M1-K32": 5, "M1-K128": 7, "M1-K512": 9, "M10-K128": 70, "M5-K32": 25, "M3-K128": 21, "M3-K512": 27}
    for row, count in bits.items():
        save(store, "table3", f"{row}-l2-depthwise", mse_normalized=0.95**count)
    text = findings([at_cpu(store)])
    assert "the three err by 0.2774 and the five by 0.2774, +0%" in text  # 0.95^25
    assert text.index("## What our runs cannot tell") < text.index("### At equal bits, more small codebooks")


def test_figure_4_is_judged_by_what_each_level_alone_decodes_to(store):
    save(store, "table4", "K256x128-l2-depthwise", psnr_db=25.0, level_alone_psnr_db=[20.0, 9.0])
    text = findings([at_cpu(store)])
    assert "K256x128-l2-depthwise (1): 25.0, 20.0, 9.0 dB" in text
    assert text.index("## What held up") < text.index("### The coarse level holds the structure")


def test_figure_4_is_the_papers_which_trains_without_level_dropout(store):
    save(store, "table4", "K256x128-l2-depthwise", psnr_db=25.0, level_alone_psnr_db=[9.0, 20.0])
    save(store, "figure4", "K256x128-l2-level-dropout-0.1", psnr_db=24.0, level_alone_psnr_db=[20.0, 9.0])
    text = findings([at_cpu(store)])
    assert "K256x128-l2-level-dropout-0.1 (1): 24.0, 20.0, 9.0 dB" in text
    assert "the coarse level is nearer in 0 of 1 runs | **not held**" in text


def test_a_difference_too_small_to_tell_is_undecided(store):
    save_errors(store, 0.0795, 0.08)
    text = findings([at_cpu(store)])
    assert text.index("## What our runs cannot tell") < text.index("### Depthwise codes reconstruct better")


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


def totals(grown, once, equal, small):
    names = ("from-16-to-64", "from-scratch-1x", "from-scratch-equal", "from-scratch-equal-small-steps")
    return {
        f"progressive/{name}": {"total_bits_per_dim": value}
        for name, value in zip(names, (grown, once, equal, small), strict=True)
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
    "One model through growing image sizes": {"new": totals(5.0, 6.0, 4.0, 5.0)},
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
    text = findings([at_cpu(store)])
    headings = {section.split("\n")[0]: section for section in text.split("\n## ")[1:]}
    assert f"### {claim}" in headings[HEADINGS[verdict]]


def test_growing_is_compared_with_each_way_from_scratch(store):
    save_twice(store, totals(5.0, 6.0, 4.0, 5.0))
    text = findings([at_cpu(store)])
    assert re.search(r"ends at 5\.0+ .*bits/dim in all", text)
    assert (
        "Growing is clearly better than the first, clearly worse than the second and not to be told from the third"
        in text
    )


def test_long_runs_are_set_beside_short_ones(store):
    for scale, errors in {"cpu": (0.04, 0.1), "cpu-long": (0.01, 0.05)}.items():
        for quantizer, error in zip(("depthwise", "shared"), errors, strict=True):
            row = f"M5-K128-l2-{quantizer}"
            save(store, "table3", row, scale=SCALES[scale], mse_normalized=error, mean_entropy_nats=10 * error)
    declared = DeclaredResults(store)
    text = findings([declared.at("cpu"), declared.at("cpu-long")])
    assert text.count("### From 1,000 to 10,000 steps") == 1
    assert "depthwise over shared: M5-K128-l2 0.40 to 0.20 (the paper, 400 epochs: 0.21)." in text
    assert "Entropy of a code, nats: M5-K128-l2-depthwise 0.40 to 0.10, M5-K128-l2-shared 1.00 to 0.50." in text


def test_other_quantizers_are_ranked_after_as_many_steps_each(store):
    errors = {"residual": 0.3, "scalar": 0.1, "residual3x": 0.05, "scalar3x": 0.2}
    save_twice(store, {f"equal_bits/{name}": {SQUARED: error} for name, error in errors.items()})
    text = findings([at_cpu(store)])
    assert (
        "after 1,000 steps\n\nSquared error, lowest first: scalar 0.1000, residual 0.3000. "
        "Clearly above scalar: residual" in text
    )
    assert "after 3,000 steps\n\nSquared error, lowest first: residual3x 0.0500, scalar3x 0.2000. Clearly above" in text


def test_codes_stand_beside_what_codecs_need_for_their_psnr(store):
    for quality, (rate, psnr) in {10: (1.0, 20.0), 40: (3.0, 30.0)}.items():
        save(store, "rate_distortion", f"webp-mosaic-q{quality}", bits_per_pixel=rate, psnr_db=psnr)
    save(store, "rate_distortion", "depthwise-M1", psnr_db=25.0, code_bits_per_pixel=0.44)
    text = findings([at_cpu(store)])
    assert "depthwise-M1 (25.0 dB) 0.44, webp 2.00." in text


def test_papers_own_figures_need_no_run(store):
    save(store, "rate_distortion", "jpeg-mosaic-q5", bits_per_pixel=1.0, psnr_db=20.0)
    text = findings([at_cpu(store)])
    # Spearman's correlation by scipy.stats.spearmanr.
    assert "mix -0.77 as captioned, -0.94 the other way round" in text
    assert "3.07 and 4.96 bits/dim" in text
    assert "44%, 63%, 82%, 82%, 86% fewer" in text
