"""The paper's claims about depthwise and shared codes, Tables 3 and 4, Sec. 5.2 and App. A.3."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, geometric_mean

from depthq.units import nats_to_bits
from studies.dq_paper.comparison import (
    Fraction,
    Pair,
    StepsToMatch,
    compared_pairs,
    pairs_of,
    ratio_of,
    sign_of_change,
    sign_of_difference,
    steps_to_match,
)
from studies.dq_paper.declared import Row, find_item, row_with
from studies.dq_paper.findings.finding import (
    NATS,
    SQUARED_ERROR,
    Finding,
    all_or_none,
    count_sides,
    in_numbers,
    verdict,
)
from studies.dq_paper.results import Result
from studies.dq_paper.row_results import Measured, RowResults

QUARTER = 0.25
NOT_COUNTED = (
    "Both have as many codes of as many bits by name; how few bits codes as redundant as the shared ones really take "
    "is counted [at equal real rate](#at-equal-real-rate)."
)


def reconstruct_better(results: RowResults) -> Iterator[Finding]:
    pairs = _of_tables_3_and_4(results, SQUARED_ERROR)
    if pairs:
        ours = geometric_mean(pair.ratio for pair in pairs if pair.ratio)
        papers = geometric_mean(pair.paper_ratio for pair in pairs if pair.paper_ratio)
        yield Finding(
            "Depthwise codes reconstruct better than as many shared ones",
            verdict([-pair.sign for pair in pairs]),
            f"Tables 3 and 4: the squared error is {count_sides(pairs, 'lower')}. It is "
            f"{ours:.2f} times that of shared codes (geometric mean); the paper's in the same rows: {papers:.2f}. "
            f"{NOT_COUNTED}",
            'table3 table4 --rows "*-l2-*"',
            paper=f"{papers:.2f} times the squared error",
            ours=f"{ours:.2f} times",
        )


def explain_better(results: RowResults) -> Iterator[Finding]:
    pairs = _of_tables_3_and_4(results, NATS)
    if pairs:
        ours = fmean(pair.shared.mean - pair.depthwise.mean for pair in pairs if pair.shared and pair.depthwise)
        papers = fmean(
            pair.paper_shared - pair.paper_depthwise for pair in pairs if pair.paper_shared and pair.paper_depthwise
        )
        yield Finding(
            "Depthwise codes explain images better than as many shared ones",
            verdict([-pair.sign for pair in pairs]),
            f"Tables 3 and 4: -log p(image | codes) is {count_sides(pairs, 'lower')}, "
            f"on average by {ours:.2f} nats/dim ({nats_to_bits(ours):.2f} bits/dim); the paper's in the same rows: "
            f"{papers:.2f} nats/dim. {NOT_COUNTED}",
            'table3 table4 --rows "*-ce-*" "*-mix-*"',
            paper=f"{papers:.2f} nats/dim less",
            ours=f"{ours:.2f} nats/dim less",
        )


def _of_tables_3_and_4(results: RowResults, metric: str) -> list[Pair]:
    items = map(find_item, ("table3", "table4"))
    return [pair for item in items for pair in compared_pairs(item, results, metric)]


def _table3_row(m: int, k: int, quantizer: str, likelihood: str = "l2") -> Row:
    return row_with("table3", num_codebooks=m, codebook_size=k, quantizer=quantizer, likelihood=likelihood)


def shared_gains_from_more(results: RowResults) -> Iterator[Finding]:
    """The baseline, looked at by itself: what its other codebooks add to its first."""
    rows = [_table3_row(m, 128, "shared") for m in (1, 10, 5)]
    rows.append(row_with("equal_bits", quantizer="shared", times_codebook_dim=5))
    if found := all_or_none(results.metric(row, SQUARED_ERROR) for row in rows):
        one, ten, narrow, wide = found
        papers = rows[1].paper[SQUARED_ERROR] / rows[0].paper[SQUARED_ERROR]
        words = {-1: "clearly less", 0: "not clearly another error", 1: "clearly more"}
        yield Finding(
            "The shared quantizer gains from more codebooks",
            verdict([-sign_of_difference(ten, one)]),
            f"Ten codebooks err {ten.mean / one.mean:.2f} times as much as one (K = 128); the paper's {papers:.2f} "
            "times. All of them see one vector, of as many dimensions as one depthwise slice. With those of five "
            f"slices together it errs by {wide.mean:.4f} instead of {narrow.mean:.4f} (M = 5): "
            f"{words[sign_of_difference(wide, narrow)]}.",
            'table3 equal_bits --rows "*-K128-l2-shared" shared shared-wide',
        )


def gain_grows(results: RowResults) -> Iterator[Finding]:
    pairs = pairs_of(find_item("table3"), results, SQUARED_ERROR)
    by_size = {(pair.row.options["num_codebooks"], pair.row.options["codebook_size"]): pair for pair in pairs}
    ratios, signs = [], []
    for size in (32, 128, 512):
        fractions = [_fraction(by_size[m, size]) for m in (3, 5, 10)]
        known = [fraction for fraction in fractions if fraction]
        if len(known) == len(fractions):
            ratios.append(f"K = {size}: {', '.join(f'{ratio_of(fraction):.2f}' for fraction in known)}")
            signs.append(-sign_of_change(known[-1], known[0]))
    if signs:
        yield Finding(
            "The gain over shared codes grows with the number of codebooks",
            verdict(signs),
            f"Squared error, depthwise over shared, for M = 3, 5, 10 (M = 1 is one network). {'; '.join(ratios)}. From "
            f"M = 3 to 10 it clearly falls for {sum(sign > 0 for sign in signs)} of {len(signs)} K.",
            'table3 --rows "*-l2-*"',
            paper="grows",
            ours=f"clearly for {sum(sign > 0 for sign in signs)} of {len(signs)} K",
        )


def _fraction(pair: Pair) -> Fraction | None:
    return (pair.depthwise, pair.shared) if pair.depthwise and pair.shared else None


def number_before_size(results: RowResults) -> Iterator[Finding]:
    """App. A.3: it is M that limits the capacity, more than K. It grows M tenfold, and log K by 1.8."""
    found = _depthwise_errors(results, ((1, 32), (1, 512), (1, 128), (10, 128)))
    if found:
        (small, large, one, ten), _ = found
        by_size, by_number = (large, small), (ten, one)
        yield Finding(
            "The number of codebooks matters more than their size",
            verdict([-sign_of_change(by_number, by_size)]),
            f"Ten codebooks instead of one multiply the error by {ratio_of(by_number):.2f} (K = 128), 512 codes "
            f"instead of 32 by {ratio_of(by_size):.2f} (M = 1). But that is ten times the bits against 1.8 times: see "
            "how they compare at equal bits.",
            'table3 --rows "*-l2-depthwise"',
            paper="M limits capacity, more than K",
            ours=f"error times {ratio_of(by_number):.2f} by M, times {ratio_of(by_size):.2f} by K",
        )


def number_at_equal_bits(results: RowResults) -> Iterator[Finding]:
    found = _depthwise_errors(results, ((5, 32), (3, 128), (3, 512)))
    if found:
        (five, *others), (papers_five, *papers_others) = found
        three, papers_three = _at_25_bits(others), _interpolated(papers_others)
        yield Finding(
            "At equal bits, more small codebooks beat fewer large ones",
            verdict([-sign_of_difference(five, three)]),
            "Not a claim of the paper's, but what it would have to mean that the number of codebooks matters more than "
            "their size. Five codebooks of 32 codes have 25 bits per position, three have 21 with 128 codes and 27 "
            f"with 512. At 25 bits, log-linear in between, the three err by {three.mean:.4f} and the five by "
            f"{five.mean:.4f}, {five.mean / three.mean - 1:+.0%}; in the paper's table {papers_three:.4f} and "
            f"{papers_five:.4f}, {papers_five / papers_three - 1:+.0%}.",
            "table3 --rows M5-K32-l2-depthwise M3-K128-l2-depthwise M3-K512-l2-depthwise",
        )


def _at_25_bits(errors: Sequence[Measured]) -> Measured:
    """Between the errors at 21 and at 27 bits, with the larger of their relative errors, which is too careful."""
    mean = _interpolated([error.mean for error in errors])
    worst = max(errors, key=lambda error: error.error / error.mean)
    return Measured(
        mean, error=worst.error / worst.mean * mean, degrees_of_freedom=worst.degrees_of_freedom, source=worst.source
    )


def _interpolated(errors: Sequence[float]) -> float:
    share = (25 - 21) / (27 - 21)
    return math.exp((1 - share) * math.log(errors[0]) + share * math.log(errors[1]))


def sizes_converge(results: RowResults) -> Iterator[Finding]:
    """App. A.3, of Fig. 5: as M grows, it matters less and less how large K is."""
    found = _depthwise_errors(results, ((1, 512), (1, 32), (10, 512), (10, 32)))
    if found:
        ours, papers = found
        gain_of_one, gain_of_ten = (ours[0], ours[1]), (ours[2], ours[3])
        one, ten = (_papers_nats(m, 32) - _papers_nats(m, 512) for m in (1, 10))
        yield Finding(
            "The loss of all K converges as M grows",
            verdict([sign_of_change(gain_of_ten, gain_of_one)]),
            f"512 codes instead of 32 multiply the squared error by {ratio_of(gain_of_one):.2f} with one codebook and "
            f"by {ratio_of(gain_of_ten):.2f} with ten. In the paper's own table by {papers[0] / papers[1]:.2f} and by "
            f"{papers[2] / papers[3]:.2f}, and they lower its likelihood's loss by {one:.2f} and by {ten:.2f} "
            "nats/dim: by its own figures, K matters more when M is large.",
            "table3 --rows M1-K32-l2 M1-K512-l2 M10-K32-l2-depthwise M10-K512-l2-depthwise",
        )


def _papers_nats(m: int, k: int) -> float:
    return _table3_row(m, k, "depthwise", "categorical").paper[NATS]


def _depthwise_errors(
    results: RowResults, sizes: Sequence[tuple[int, int]]
) -> tuple[list[Measured], list[float]] | None:
    """Squared errors, ours and the paper's, of depthwise rows of Table 3 by (M, K); None if one has not been run."""
    rows = [_table3_row(m, k, "depthwise") for m, k in sizes]
    ours = all_or_none(results.metric(row, SQUARED_ERROR) for row in rows)
    return (ours, [row.paper[SQUARED_ERROR] for row in rows]) if ours else None


def share_less(results: RowResults) -> Iterator[Finding]:
    words = {
        "mean_mutual_information_nats": "plug-in",
        "mean_mutual_information_shuffle_nats": "shuffle",
        "mean_mutual_information_miller_madow_nats": "Miller-Madow",
    }
    found = {name: compared_pairs(find_item("decoupling"), results, name) for name in words}
    if any(found.values()):
        yield Finding(
            "Depthwise codebooks share less information than shared ones",
            verdict([-pair.sign for pairs in found.values() for pair in pairs]),
            "Mean over pairs of codebooks, nats, depthwise against shared. "
            + " ".join(f"By {words[name]}: {'; '.join(map(in_numbers, pairs))}." for name, pairs in found.items()),
            "decoupling",
            paper="less mutual information",
            ours="; ".join(map(in_numbers, found["mean_mutual_information_shuffle_nats"][:1])) + " nats (shuffle)",
        )


def entropy_is_higher(results: RowResults) -> Iterator[Finding]:
    pairs = compared_pairs(find_item("decoupling"), results, "mean_entropy_nats")
    if pairs:
        yield Finding(
            "A depthwise code says more than a shared one: its entropy is higher",
            verdict([pair.sign for pair in pairs]),
            f"Nats, depthwise against shared. {'; '.join(map(in_numbers, pairs))}. It is "
            f"{count_sides(pairs, 'higher')}. Rare codes are re-drawn with both.",
            "decoupling",
            paper="higher",
            ours=count_sides(pairs, "higher"),
        )


def is_there_sooner(results: RowResults) -> Iterator[Finding]:
    pairs = list(steps_to_match(find_item("convergence"), results))
    if pairs:
        at_end = sum(steps.is_best_last for steps in pairs)
        yield Finding(
            "Depthwise reaches the best of shared sooner",
            verdict([steps.is_sooner for steps in pairs]),
            f"{_in_steps(pairs)}. Measured every {pairs[0].interval} steps, by the runs of the first seed; the true "
            "step is up to so many earlier.",
            "convergence",
        )
        yield Finding(
            "Depthwise reaches the best of shared in a quarter of the steps",
            verdict([steps.is_within(QUARTER) for steps in pairs]),
            f"{_in_steps(pairs)}. Both runs have the same schedule, which ends at a learning rate of zero; {at_end} of "
            f"{len(pairs)} shared runs are at their best only there.",
            "convergence",
            paper="a quarter of the steps",
            ours=_in_steps(pairs),
        )


def _in_steps(pairs: Sequence[StepsToMatch]) -> str:
    return "; ".join(
        f"{steps.name}: step {steps.matched_step} against {steps.best_step}"
        if steps.matched_step
        else f"{steps.name}: never"
        for steps in pairs
    )


def coarse_holds_structure(results: RowResults) -> Iterator[Finding]:
    """Fig. 4: which level the image is in."""
    measured, signs = [], []
    for row in find_item("figure4").rows:
        found = [result for result in results.of(row) if "level_alone_psnr_db" in result.figures]
        if found:
            measured.append(f"{row.name} ({len(found)}): {_of_levels_alone(found)}")
        if "level_dropout" not in row.options:  # the paper trains without
            alone = [result.figures["level_alone_psnr_db"] for result in found]
            signs += [1 if coarse > fine else -1 for coarse, fine in alone]
    if signs:
        yield Finding(
            "The coarse level holds the structure, the fine one the details (Fig. 4)",
            verdict(signs),
            "PSNR of all test images from both levels, the coarse alone, the fine alone, by row, mean over so many "
            f"seeds: {'; '.join(measured)}. An image without its structure should lose more than one without its "
            "details. The maps of a level left out are zero, which the decoder has never seen. With level dropout, "
            "which is not the paper's, it has, for a share of the images, and then the coarse level does hold the "
            "structure.",
            "figure4",
            paper="yes, by a picture",
            ours=f"the coarse level is nearer in {sum(sign > 0 for sign in signs)} of {len(signs)} runs",
        )


def _of_levels_alone(found: Sequence[Result]) -> str:
    both = fmean(result.figures["psnr_db"] for result in found)
    coarse, fine = (fmean(result.figures["level_alone_psnr_db"][level] for result in found) for level in (0, 1))
    return f"{both:.1f}, {coarse:.1f}, {fine:.1f} dB"


def digits_too(results: RowResults) -> Iterator[Finding]:
    for pair in compared_pairs(find_item("mnist"), results, SQUARED_ERROR):
        yield Finding(
            "MNIST: depthwise reconstructs better than shared",
            verdict([-pair.sign]),
            f"Its squared error is {pair.ratio:.2f} times the other's; the paper's {pair.paper_ratio:.2f} times.",
            "mnist",
            paper=f"{pair.paper_ratio:.2f} times the squared error",
            ours=f"{pair.ratio:.2f} times",
        )


CLAIMS = (
    reconstruct_better,
    explain_better,
    shared_gains_from_more,
    gain_grows,
    number_before_size,
    number_at_equal_bits,
    sizes_converge,
    share_less,
    entropy_is_higher,
    is_there_sooner,
    coarse_holds_structure,
    digits_too,
)
