"""docs/findings.md: each claim of the paper, whether it holds in our results, and the numbers that say so."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from depthq.reproduce.book import Measured, ResultsBook
from depthq.reproduce.comparison import (
    CLEAR_DEVIATIONS,
    Pair,
    compared_pairs,
    convergence,
    pairs_of,
    rate_at_quality,
    sign_of_difference,
)
from depthq.reproduce.declared import find_item
from depthq.reproduce.scales import Scale
from depthq.units import nats_to_bits

HEADINGS = {
    "held": "What held up",
    "partly": "What held up in part",
    "undecided": "What our runs cannot tell",
    "failed": "What did not",
    "units": "Units and omissions",
    "new": "Past the paper",
}
"""By verdict, in the order of the page."""
QUARTER = 0.25


@dataclass(frozen=True)
class Finding:
    """A claim, put to the test."""

    claim: str
    verdict: str
    """One of `HEADINGS`."""
    evidence: str
    command: str
    """What measures it, behind "depthq reproduce"."""


def findings(book: ResultsBook, scale: Scale, scale_name: str) -> str:
    """The page: claims without results are left out."""
    found = [finding for test in TESTS for finding in test(scale, book)]
    lines = [
        "# Findings",
        "",
        "Written by `depthq reproduce --render` from the files in `results/`, verdicts included; not to be edited. All "
        "rows are in [reproduction.md](reproduction.md), how to read them in [metrics.md](metrics.md).",
        "",
        f"Scale `{scale_name}`: {scale.protocol}. A claim about many rows holds if it clearly does in every row that "
        f"was run for both quantizers. A difference is clear if it exceeds {CLEAR_DEVIATIONS:g} standard deviations of "
        "a run; of a single run that of all rows with several seeds is taken, "
        f"{book.spread('mse_normalized', scale):.1%} of a squared error. Networks this small and runs this short say "
        "nothing about the figures that large ones reach, nor how large the paper's advantage is; only whether it is "
        "there.",
    ]
    for verdict, heading in HEADINGS.items():
        of_this_kind = [finding for finding in found if finding.verdict == verdict]
        if of_this_kind:
            lines += ["", f"## {heading}"]
        for finding in of_this_kind:
            command = f"depthq reproduce {finding.command} --scale {scale_name}"
            lines += ["", f"### {finding.claim}", "", finding.evidence, "", f"`{command}`"]
    return "\n".join(lines) + "\n"


def _depthwise_is_lower(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    claims = {
        "mse_normalized": ("Depthwise codes reconstruct better than as many shared ones", "squared error"),
        "nll_nats_per_dim": ("Depthwise codes explain images better than as many shared ones", "negative log-likelihood"),
    }
    for figure, (claim, what) in claims.items():
        pairs = [pair for name in ("table3", "table4") for pair in compared_pairs(find_item(name), scale, book, figure)]
        if pairs:
            ours = [pair.ratio for pair, _ in pairs if pair.ratio is not None]
            papers = [pair.paper_ratio for pair, _ in pairs if pair.paper_ratio is not None]
            lower = sum(sign < 0 for _, sign in pairs)
            yield Finding(
                claim,
                _verdict([-sign for _, sign in pairs]),
                f"In {lower} of {len(ours)} rows of Tables 3 and 4. The {what} of depthwise codes is "
                f"{geometric_mean(ours):.2f} times that of shared ones (geometric mean); the paper's in the same rows: "
                f"{geometric_mean(papers):.2f}. Both have as many codes of as many bits; into how few bits codes as "
                "redundant as the shared ones could be packed is not counted.",
                "table3 table4",
            )


def _shared_gains_little(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    """The baseline, looked at by itself: what its other codebooks add to its first."""
    rows = {row.name: row for row in find_item("table3").rows}
    one, ten = rows["M1-K128-l2-shared"], rows["M10-K128-l2-shared"]
    ours = [measured for row in (one, ten) if (measured := book.figure(row, scale, "mse_normalized"))]
    (wide_row,) = [row for row in find_item("equal_bits").rows if row.name == "shared-wide"]
    wide = book.figure(wide_row, scale, "mse_normalized")
    narrow = book.figure(rows["M5-K128-l2-shared"], scale, "mse_normalized")
    if len(ours) == 2 and wide and narrow:
        paper = ten.paper["mse_normalized"] / one.paper["mse_normalized"]
        yield Finding(
            "The shared quantizer gains from more codebooks",
            _verdict([-sign_of_difference(ours[1], ours[0], book.spread("mse_normalized", scale))]),
            f"Ten codebooks err {ours[1].mean / ours[0].mean:.2f} times as much as one (K = 128); the paper's "
            f"{paper:.2f} times. All of them see one vector of D = 4. That is not what limits it: with D = 20, as many "
            f"as five depthwise slices have together, it errs by {wide.mean:.4f} against {narrow.mean:.4f} with D = 4 "
            "(M = 5). Codebooks that see the same vector, each by itself, learn nearly the same: see what they share, "
            "below.",
            'table3 --rows "*-K128-l2-shared"',
        )


def _gain_grows(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    ratios = {pair.name: pair.ratio for pair in pairs_of(find_item("table3"), scale, book, "mse_normalized")}
    series = [[ratios.get(f"M{m}-K{k}-l2") for m in (1, 3, 5, 10)] for k in (32, 128, 512)]
    complete = [[ratio for ratio in ones if ratio is not None] for ones in series if None not in ones]
    if complete:
        falling = sum(ones == sorted(ones, reverse=True) for ones in complete)
        shown = "; ".join(", ".join(f"{ratio:.2f}" for ratio in ones) for ones in complete)
        yield Finding(
            "The gain over shared codes grows with the number of codebooks",
            _verdict([1 if ones == sorted(ones, reverse=True) else -1 for ones in complete]),
            "Squared error, depthwise over shared, for M = 1, 3, 5, 10, a series for each K: "
            f"{shown}. It falls throughout in {falling} of {len(complete)}.",
            'table3 --rows "*-l2-*"',
        )


def _codebooks_before_codes(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    """App. A.3: it is M that limits the capacity, more than K. It grows M tenfold, and log K by 1.8."""
    rows = {row.name: row for row in find_item("table3").rows}
    names = [
        f"M{m}-K{k}-l2-depthwise" for m, k in ((1, 32), (1, 512), (1, 128), (10, 128), (5, 32), (3, 128), (3, 512))
    ]
    papers = [rows[name].paper["mse_normalized"] for name in names]
    ours = [measured.mean for name in names if (measured := book.figure(rows[name], scale, "mse_normalized"))]
    if len(ours) < len(names):
        return
    by_size, by_number = ours[1] / ours[0], ours[3] / ours[2]
    yield Finding(
        "The number of codebooks matters more than their size",
        _verdict([1 if by_number < by_size else -1]),
        f"Ten codebooks instead of one multiply the error by {by_number:.2f} (K = 128), 512 codes instead of 32 by "
        f"{by_size:.2f} (M = 1). But that is ten times the bits against 1.8 times.",
        'table3 --rows "*-l2-depthwise"',
    )
    five, three = (Measured(error, None, 1) for error in (ours[4], _at_25_bits(ours[5:])))
    difference = five.mean / three.mean - 1
    of_paper = papers[4] / _at_25_bits(papers[5:]) - 1
    yield Finding(
        "At equal bits, more small codebooks beat fewer large ones",
        _verdict([-sign_of_difference(five, three, book.spread("mse_normalized", scale))]),
        "Not a claim of the paper's, but what the one above would have to mean. Five codebooks of 32 codes have 25 "
        "bits per position, three have 21 with 128 codes and 27 with 512. At 25 bits, log-linear in between, the three "
        f"err by {_at_25_bits(ours[5:]):.4f} and the five by {ours[4]:.4f}, {difference:+.0%}; in the paper's table "
        f"{_at_25_bits(papers[5:]):.4f} and {papers[4]:.4f}, {of_paper:+.0%}.",
        "table3 --rows M5-K32-l2-depthwise M3-K128-l2-depthwise M3-K512-l2-depthwise",
    )


def _at_25_bits(errors: Sequence[float]) -> float:
    """Between the errors at 21 and at 27 bits."""
    share = (25 - 21) / (27 - 21)
    return math.exp((1 - share) * math.log(errors[0]) + share * math.log(errors[1]))


def _decoupled(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    item = find_item("decoupling")
    estimators = {
        "mean_mutual_information_nats": "plug-in",
        "mean_mutual_information_shuffle_nats": "shuffle-corrected",
        "mean_mutual_information_miller_madow_nats": "Miller-Madow",
    }
    found = {words: compared_pairs(item, scale, book, name) for name, words in estimators.items()}
    if any(found.values()):
        yield Finding(
            "Depthwise codebooks share less information than shared ones",
            _verdict([-sign for pairs in found.values() for _, sign in pairs]),
            "Mean over pairs of codebooks, nats, depthwise against shared. "
            + " ".join(f"{words}: {'; '.join(map(_against, pairs))}." for words, pairs in found.items()),
            "decoupling",
        )
    pairs = compared_pairs(item, scale, book, "mean_entropy_nats")
    if pairs:
        yield Finding(
            "A depthwise code says more than a shared one: its entropy is higher",
            _verdict([sign for _, sign in pairs]),
            f"Nats, depthwise against shared. {'; '.join(map(_against, pairs))}. Both use their codes almost "
            "evenly: rare ones are re-drawn whichever quantizer it is.",
            "decoupling",
        )


def _against(compared: tuple[Pair, int]) -> str:
    pair, _ = compared
    assert pair.depthwise
    assert pair.shared
    ours = f"{pair.name}: {pair.depthwise.mean:.3f} against {pair.shared.mean:.3f}"
    return ours + (f" (paper: {pair.paper_depthwise} against {pair.paper_shared})" if pair.paper_ratio else "")


def _converges_sooner(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    races = list(convergence(find_item("convergence"), scale, book))
    if races:
        told = "; ".join(
            f"{race.name}: step {race.reached_at} against {race.goal_at}" if race.reached_at else f"{race.name}: never"
            for race in races
        )
        yield Finding(
            "Depthwise reaches the best of shared in a quarter of its steps",
            _verdict([race.is_within(QUARTER) for race in races]),
            f"{told}. Measured every {races[0].every} steps; the true step is up to so many earlier. Both runs have "
            "the same schedule, and the shared one is best at its end, when the learning rate has fallen to nothing.",
            "convergence",
        )


def _headline(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    """Table 1's 2.52 is Table 4's, of K = [128, 256]."""
    (row,) = [row for row in find_item("table1").rows if row.name == "cifar10-depthwise"]
    (of_table4,) = [row for row in find_item("table4").rows if row.name == "K128x256-mix-depthwise"]
    ours, theirs = book.first(row, scale), book.first(of_table4, scale)
    if ours is None or theirs is None:
        return
    printed = of_table4.paper["nll_nats_per_dim"]
    bits, code_bits = nats_to_bits(printed), theirs.figures["code_bits_per_dim"]
    own = ", ".join(
        f"{ours.figures[name]:.2f} {unit}"
        for name, unit in (
            ("nll_nats_per_dim", "nats/dim for the image"),
            ("nll_bits_per_dim", "bits/dim"),
            ("total_bits_per_dim", "bits/dim with the codes"),
        )
    )
    yield Finding(
        f"{printed} bits/dim on CIFAR-10 (Table 1)",
        "units",
        f"Table 4 has {printed} for K = [128, 256], in nats per dim, and the public code never divides by ln 2: it is "
        f"{bits:.2f} bits/dim. The codes that the image is then given cost up to {code_bits:.2f} bits/dim more "
        "(uniform prior), and are left out. What compares with VD-VAE's 2.80 or with a PNG file is up to "
        f"{bits + code_bits:.2f} bits/dim: the lead over likelihood models is one of units and omissions. "
        f"Ours, [256, 128] at this scale: {own}.",
        "table1 --rows cifar10",
    )
    depthwise, shared = (nats_to_bits(nats) for nats in (2.13, 3.44))
    yield Finding(
        "3.14 against 4.36 bits/dim (Sec. 5.2)",
        "units",
        f"For the same M = 10, K = 512, Table 3 has 2.13 and 3.44 nats, which are {depthwise:.2f} and {shared:.2f} "
        "bits/dim. The two places do not agree in either unit.",
        "table3 --rows M10-K512-ce",
    )
    others = (39, 59, 119, 125, 152)
    saved = ", ".join(f"{1 - 22 / size:.0%}" for size in others)
    yield Finding(
        "69% fewer parameters",
        "units",
        f"Table 1 has 22M parameters beside {', '.join(f'{size}M' for size in others)}: {saved} fewer. "
        "No one of them is 69%.",
        "table1 --rows cifar10",
    )


def _density(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    figures = {
        row.name: result.figures
        for row in find_item("table2").rows
        if row.name.startswith("lite0") and (result := book.first(row, scale))
    }
    pairs = _partners(figures, "row", "channel")
    for figure, claim, sign in (
        ("mse", "Codebooks by channel describe features with less error than codebooks by row", -1),
        ("entropy_miller_madow_nats", "Codebooks by channel have the higher entropy", 1),
    ):
        if pairs:
            compared = [(_over_seeds(row, figure), _over_seeds(channel, figure)) for row, channel in pairs.values()]
            told = "; ".join(
                f"{name}: {channel.mean:.4g} against {row.mean:.4g}"
                for name, (row, channel) in zip(pairs, compared, strict=True)
            )
            yield Finding(
                claim,
                _verdict([sign * sign_of_difference(channel, row, spread=0.0) for row, channel in compared]),
                f"Held-out maps of EfficientNet-lite0, by channel against by row. {told}.",
                "table2 --rows lite0",
            )
    grown = _partners(figures, "K32", "K1024")
    if grown:
        shown = {on: [_errors(pair, on) for pair in grown.values()] for on in ("training", "held_out")}
        yield Finding(
            "The error grows from K = 32 to K = 1024 (Table 2)",
            _verdict([1 if large > small else -1 for errors in shown.values() for small, large in errors]),
            f"Standardised, on the maps trained on: {_grown(shown['training'])}; held out: "
            f"{_grown(shown['held_out'])}. A converged quantizer with more codes cannot err more on what it was "
            "trained on; the paper's 0.184 to 0.480 points to codebooks that died or never converged, or to another "
            "scale.",
            "table2 --rows lite0",
        )


def _partners(figures: dict[str, dict], word: str, other: str) -> dict[str, tuple[dict, dict]]:
    """The figures of rows whose names differ in one word, by what is left of the name."""
    names = {name: name.replace(word, other) for name in figures if word in name.split("-")}
    return {
        name.replace(f"-{word}", ""): (figures[name], figures[partner])
        for name, partner in names.items()
        if partner in figures
    }


def _over_seeds(figures: dict, name: str) -> Measured:
    return Measured(figures["held_out"][name]["mean"], figures["held_out"][name]["deviation"], figures["seeds"])


def _errors(pair: tuple[dict, dict], on: str) -> tuple[float, float]:
    small, large = (figures[on]["mse_standardized"]["mean"] for figures in pair)
    return small, large


def _grown(errors: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{small:.3g} to {large:.3g}" for small, large in errors)


def _digits(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    for pair, sign in compared_pairs(find_item("mnist"), scale, book, "mse_normalized"):
        yield Finding(
            "MNIST: depthwise reconstructs better than shared",
            _verdict([-sign]),
            f"Its squared error is {pair.ratio:.2f} times the other's; the paper's {pair.paper_ratio:.2f} times.",
            "mnist",
        )


def _others_at_equal_bits(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    rows = find_item("equal_bits").rows
    errors = {row.name: measured.mean for row in rows if (measured := book.figure(row, scale, "mse_normalized"))}
    if len(errors) > 1:
        ranked = sorted(errors, key=errors.__getitem__)
        yield Finding(
            "Other quantizers in the same auto-encoder, at the same 35 bits per position",
            "new",
            "Squared error, best first: " + ", ".join(f"{name} {errors[name]:.4f}" for name in ranked) + ".",
            "equal_bits",
        )


def _beside_codecs(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    item, told = find_item("rate_distortion"), []
    for row in item.rows:
        quality, rate = book.figure(row, scale, "psnr_db"), book.figure(row, scale, "code_bits_per_pixel")
        if row.name.startswith("depthwise") and quality and rate:
            rates = [rate_at_quality(item, book, scale, f"jxl-{how}", quality.mean) for how in ("mosaic", "files")]
            if rates[0]:
                files = f" ({rates[1]:.2f} as single files)" if rates[1] else ""
                told.append(f"{quality.mean:.1f} dB: {rate.mean:.2f}, JPEG XL {rates[0]:.2f}{files}")
    if told:
        yield Finding(
            "Depthwise codes beside JPEG XL",
            "new",
            f"Bits per pixel for the same PSNR on CIFAR-10: {'; '.join(told)}. The tokenizer's codes are counted at "
            "log2 K bits, its weights not at all; it was trained on such images, the codec on none.",
            "rate_distortion",
        )


def _progressive(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    totals = {
        row.name: measured
        for row in find_item("progressive").rows
        if (measured := book.figure(row, scale, "total_bits_per_dim"))
    }
    grown, once, twice = (totals.get(name) for name in ("from-16-to-32", "from-scratch-1x", "from-scratch-2x"))
    if grown and once and twice:
        words = {-1: "better than", 0: "no different from", 1: "worse than"}
        spread = book.spread("total_bits_per_dim", scale)
        than_once, than_twice = (words[sign_of_difference(grown, other, spread)] for other in (once, twice))
        yield Finding(
            "One model through growing image sizes",
            "new",
            f"32 x 32 behind 16 x 16 ends at {grown.mean:.3f} bits/dim in all. From scratch at 32 x 32, with as many "
            f"steps as that last stage: {once.mean:.3f}; with as many as both: {twice.mean:.3f}. Growing is "
            f"{than_once} the former and {than_twice} the latter, which costs more. One seed each.",
            "progressive",
        )


def _verdict(signs: Sequence[int]) -> str:
    """Of comparisons that came out as claimed (1), against the claim (-1), or too close to tell (0)."""
    if all(sign > 0 for sign in signs):
        return "held"
    if any(sign > 0 for sign in signs):
        return "partly"
    return "failed" if any(sign < 0 for sign in signs) else "undecided"


TESTS: tuple[Callable[[Scale, ResultsBook], Iterator[Finding]], ...] = (
    _depthwise_is_lower,
    _shared_gains_little,
    _gain_grows,
    _codebooks_before_codes,
    _decoupled,
    _converges_sooner,
    _digits,
    _headline,
    _density,
    _others_at_equal_bits,
    _beside_codecs,
    _progressive,
)
"""Each looks at one claim, and yields nothing where its rows have not been run."""
