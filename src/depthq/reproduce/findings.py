"""docs/findings.md: each claim of the paper, whether it holds in our results, and the numbers that say so."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from depthq.reproduce.book import Measured, ResultsBook
from depthq.reproduce.comparison import (
    Fraction,
    Pair,
    compared_pairs,
    convergence,
    pairs_of,
    rate_at_quality,
    ratio_of,
    sign_of_change,
    sign_of_difference,
    told_of_clearness,
)
from depthq.reproduce.declared import Row, find_item
from depthq.reproduce.scales import SCALES, Scale
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
SQUARED_ERROR = "mse_normalized"
TABLE1_PARAMETERS = 22, (39, 59, 119, 125, 152)
"""The paper's model's and the others', in millions, as printed."""
PAPERS_C_R_NATS = 0.2
"""Sec. 5.4, of the codes."""
PAPERS_CODE = "[public code](https://github.com/fostiropoulos/Depthwise-Quantization) (`loss_utils.py` at 52102d5)"


@dataclass(frozen=True)
class Finding:
    """A claim, put to the test."""

    claim: str
    verdict: str
    """One of `HEADINGS`."""
    evidence: str
    command: str
    """What measures it, behind "depthq reproduce"."""


def findings(book: ResultsBook, scale_names: Sequence[str]) -> str:
    """The page: claims without results are left out.

    Args:
        book: The results.
        scale_names: Keys of `SCALES`, in the order to show. What has no scale is told with the first.
    """
    lines = [
        "# Findings",
        "",
        "Written by `depthq reproduce --render` from the files in `results/`, verdicts included; not to be edited. All "
        "rows are in [reproduction.md](reproduction.md), how to read them in [metrics.md](metrics.md).",
    ]
    for number, name in enumerate(scale_names):
        tests = (*TESTS, *TESTS_WITHOUT_SCALE) if number == 0 else TESTS
        lines += _at_scale(book, name, tests, is_only=len(scale_names) == 1)
    return "\n".join(lines) + "\n"


def _at_scale(book: ResultsBook, scale_name: str, tests: Sequence["Test"], *, is_only: bool) -> list[str]:
    scale = SCALES[scale_name]
    found = [finding for test in tests for finding in test(scale, book)]
    lines = [
        "",
        f"Scale `{scale_name}`: {scale.protocol}. A claim about many rows holds if it clearly does in every row that "
        f"was run for both quantizers. {told_of_clearness(book, scale)} {scale.caveat}".strip(),
    ]
    for verdict, heading in HEADINGS.items():
        of_this_kind = [finding for finding in found if finding.verdict == verdict]
        if of_this_kind:
            lines += ["", f"## {heading}" if is_only else f"## {heading}, scale {scale_name}"]
        for finding in of_this_kind:
            command = f"depthq reproduce {finding.command} --scale {scale_name}"
            lines += ["", f"### {finding.claim}", "", finding.evidence, "", f"`{command}`"]
    return lines


def _depthwise_is_lower(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    claims = {
        SQUARED_ERROR: ("Depthwise codes reconstruct better than as many shared ones", "squared error"),
        "nll_nats_per_dim": (
            "Depthwise codes explain images better than as many shared ones",
            "negative log-likelihood",
        ),
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
    rows = _rows("table3")
    one, ten = rows["M1-K128-l2-shared"], rows["M10-K128-l2-shared"]
    ours = [measured for row in (one, ten) if (measured := book.figure(row, scale, SQUARED_ERROR))]
    wide = book.figure(_rows("equal_bits")["shared-wide"], scale, SQUARED_ERROR)
    narrow = book.figure(rows["M5-K128-l2-shared"], scale, SQUARED_ERROR)
    if len(ours) == 2 and wide and narrow:
        spread = book.spread(SQUARED_ERROR, scale, "l2")
        paper = ten.paper[SQUARED_ERROR] / one.paper[SQUARED_ERROR]
        is_limit = sign_of_difference(wide, narrow, spread) < 0
        yield Finding(
            "The shared quantizer gains from more codebooks",
            _verdict([-sign_of_difference(ours[1], ours[0], spread)]),
            f"Ten codebooks err {ours[1].mean / ours[0].mean:.2f} times as much as one (K = 128); the paper's "
            f"{paper:.2f} times. All of them see one vector of few dimensions. That is "
            f"{'part of what' if is_limit else 'not what'} limits it: where it has as many as five depthwise slices "
            f"together, it errs by {wide.mean:.4f}, with as many as one of them by {narrow.mean:.4f} (M = 5). "
            "Codebooks that see the same vector, each by itself, learn much the same: see what they share, below.",
            'table3 --rows "*-K128-l2-shared"',
        )


def _gain_grows(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    pairs = {pair.name: pair for pair in pairs_of(find_item("table3"), scale, book, SQUARED_ERROR)}
    spread = book.spread(SQUARED_ERROR, scale, "l2")
    told, signs = [], []
    for size in (32, 128, 512):
        fractions = [_fraction(pairs[f"M{m}-K{size}-l2"]) for m in (3, 5, 10)]
        if all(fractions):
            known = [fraction for fraction in fractions if fraction]
            told.append(f"K = {size}: {', '.join(f'{ratio_of(fraction):.2f}' for fraction in known)}")
            signs.append(-sign_of_change(known[-1], known[0], spread))
    if signs:
        yield Finding(
            "The gain over shared codes grows with the number of codebooks",
            _verdict(signs),
            f"Squared error, depthwise over shared, for M = 3, 5, 10 (M = 1 is one network). {'; '.join(told)}. From "
            f"M = 3 to 10 it clearly falls for {sum(sign > 0 for sign in signs)} of {len(signs)} K; steps between may "
            "lie within the spread.",
            'table3 --rows "*-l2-*"',
        )


def _fraction(pair: Pair) -> Fraction | None:
    return (pair.depthwise, pair.shared) if pair.depthwise and pair.shared else None


def _codebooks_before_codes(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    """App. A.3: it is M that limits the capacity, more than K. It grows M tenfold, and log K by 1.8."""
    found = _depthwise_errors(scale, book, ((1, 32), (1, 512), (1, 128), (10, 128), (5, 32), (3, 128), (3, 512)))
    if found is None:
        return
    ours, papers = found
    spread = book.spread(SQUARED_ERROR, scale, "l2")
    by_size, by_number = (ours[1], ours[0]), (ours[3], ours[2])
    yield Finding(
        "The number of codebooks matters more than their size",
        _verdict([-sign_of_change(by_number, by_size, spread)]),
        f"Ten codebooks instead of one multiply the error by {ratio_of(by_number):.2f} (K = 128), 512 codes instead of "
        f"32 by {ratio_of(by_size):.2f} (M = 1). But that is ten times the bits against 1.8 times.",
        'table3 --rows "*-l2-depthwise"',
    )
    five, three = ours[4], Measured(_at_25_bits([error.mean for error in ours[5:]]), None, 1)
    of_paper = papers[4] / _at_25_bits(papers[5:]) - 1
    yield Finding(
        "At equal bits, more small codebooks beat fewer large ones",
        _verdict([-sign_of_difference(five, three, spread)]),
        "Not a claim of the paper's, but what the one above would have to mean. Five codebooks of 32 codes have 25 "
        "bits per position, three have 21 with 128 codes and 27 with 512. At 25 bits, log-linear in between, the three "
        f"err by {three.mean:.4f} and the five by {five.mean:.4f}, {five.mean / three.mean - 1:+.0%}; in the paper's "
        f"table {_at_25_bits(papers[5:]):.4f} and {papers[4]:.4f}, {of_paper:+.0%}.",
        "table3 --rows M5-K32-l2-depthwise M3-K128-l2-depthwise M3-K512-l2-depthwise",
    )


def _sizes_converge(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    """App. A.3, of Fig. 5: as M grows, it matters less and less how large K is."""
    found = _depthwise_errors(scale, book, ((1, 512), (1, 32), (10, 512), (10, 32)))
    if found is None:
        return
    ours, papers = found
    gain_of_one, gain_of_ten = (ours[0], ours[1]), (ours[2], ours[3])
    nats = {name: row.paper["nll_nats_per_dim"] for name, row in _rows("table3").items() if "-ce-depthwise" in name}
    one, ten = (nats[f"M{m}-K32-ce-depthwise"] - nats[f"M{m}-K512-ce-depthwise"] for m in (1, 10))
    yield Finding(
        "The loss of all K converges as M grows",
        _verdict([sign_of_change(gain_of_ten, gain_of_one, book.spread(SQUARED_ERROR, scale, "l2"))]),
        f"512 codes instead of 32 multiply the squared error by {ratio_of(gain_of_one):.2f} with one codebook and by "
        f"{ratio_of(gain_of_ten):.2f} with ten. In the paper's own table by {papers[0] / papers[1]:.2f} and by "
        f"{papers[2] / papers[3]:.2f}, and they lower its likelihood's loss by {one:.2f} and by {ten:.2f} nats: there "
        "too, K matters no less when M is large.",
        "table3 --rows M1-K32-l2 M1-K512-l2 M10-K32-l2-depthwise M10-K512-l2-depthwise",
    )


def _depthwise_errors(
    scale: Scale, book: ResultsBook, sizes: Sequence[tuple[int, int]]
) -> tuple[list[Measured], list[float]] | None:
    """Squared errors, ours and the paper's, of depthwise rows of Table 3 by (M, K); None if one has not been run."""
    rows = [_rows("table3")[f"M{m}-K{k}-l2-depthwise"] for m, k in sizes]
    ours = [measured for row in rows if (measured := book.figure(row, scale, SQUARED_ERROR))]
    return (ours, [row.paper[SQUARED_ERROR] for row in rows]) if len(ours) == len(rows) else None


def _rows(item: str) -> dict[str, Row]:
    return {row.name: row for row in find_item(item).rows}


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
            f"Nats, depthwise against shared. {'; '.join(map(_against, pairs))}. Rare codes are re-drawn whichever "
            "quantizer it is, which evens out both.",
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
        at_end = sum(race.is_goal_at_end for race in races)
        yield Finding(
            "Depthwise reaches the best of shared in a quarter of its steps",
            _verdict([race.is_within(QUARTER) for race in races]),
            f"{told}. Measured every {races[0].every} steps; the true step is up to so many earlier. Both runs have "
            f"the same schedule, which ends at a learning rate of nothing; {at_end} of {len(races)} shared runs are at "
            "their best only there.",
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
    c_r = nats_to_bits(PAPERS_C_R_NATS)
    yield Finding(
        f"{printed} bits/dim on CIFAR-10 (Table 1)",
        "units",
        f"Table 4 has {printed} for K = [128, 256], headed nats/dim, and the {PAPERS_CODE} never divides by ln 2: it "
        f"is {bits:.2f} bits/dim. The codes that the image is then given are not in it. They cost up to "
        f"{code_bits:.2f} bits/dim more (uniform prior); Sec. 5.4 puts them at about {PAPERS_C_R_NATS} nats, which is "
        f"{c_r:.2f} bits/dim if it is meant per dim, without saying how that was estimated, and Sec. 6 itself calls "
        "comparisons with models of another prior possibly flawed. What compares with VD-VAE's 2.80 or with a PNG "
        f"file is {bits + c_r:.2f} to {bits + code_bits:.2f} bits/dim: the lead over likelihood models is one of units "
        f"and omissions. Ours, [256, 128] at this scale: {own}.",
        "table1 --rows cifar10",
    )
    rows = _rows("table3")
    nats = [rows[f"M10-K512-ce-{quantizer}"].paper["nll_nats_per_dim"] for quantizer in ("depthwise", "shared")]
    yield Finding(
        "3.14 against 4.36 bits/dim (Sec. 5.2)",
        "units",
        f"For the same M = 10, K = 512, Table 3 has {nats[0]} and {nats[1]} nats, which are "
        f"{nats_to_bits(nats[0]):.2f} and {nats_to_bits(nats[1]):.2f} bits/dim. The two places do not agree in either "
        "unit.",
        "table3 --rows M10-K512-ce",
    )
    own_size, sizes = TABLE1_PARAMETERS
    saved = ", ".join(f"{1 - own_size / size:.0%}" for size in sizes)
    yield Finding(
        "69% fewer parameters",
        "units",
        f"Table 1 has {own_size}M parameters beside {', '.join(f'{size}M' for size in sizes)}: {saved} fewer. "
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
                _verdict([sign * sign_of_difference(channel, row, spread=None) for row, channel in compared]),
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
    errors = {row.name: measured for row in rows if (measured := book.figure(row, scale, SQUARED_ERROR))}
    if len(errors) < 2:
        return
    ranked = sorted(errors, key=lambda name: errors[name].mean)
    spread = book.spread(SQUARED_ERROR, scale, "l2")
    equal = [name for name in ranked[1:] if not sign_of_difference(errors[name], errors[ranked[0]], spread)]
    shared = {
        row.name: f"{row.name} {measured.mean:.3f}"
        for row in rows
        if (measured := book.figure(row, scale, "mean_mutual_information_nats"))
    }
    yield Finding(
        "Other quantizers in the same auto-encoder, at the same 35 bits per position",
        "new",
        f"Squared error, lowest first: {', '.join(f'{name} {errors[name].mean:.4f}' for name in ranked)}. Not to be "
        f"told apart from the first: {', '.join(equal) or 'none'}. All are trained as depthwise is; nothing was tuned "
        "for the others. Mean mutual information of two codebooks, nats, plug-in: "
        f"{', '.join(shared[name] for name in ranked if name in shared)}.",
        "equal_bits",
    )


def _beside_codecs(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    item, told, cheaper = find_item("rate_distortion"), [], []
    for row in item.rows:
        quality, rate = book.figure(row, scale, "psnr_db"), book.figure(row, scale, "code_bits_per_pixel")
        if not row.name.startswith("depthwise") or not quality or not rate:
            continue
        rates = {
            codec: bits
            for codec in ("jxl", "webp", "jpeg")
            if (bits := rate_at_quality(item, book, scale, f"{codec}-mosaic", quality.mean))
        }
        if rates:
            codecs = ", ".join(f"{codec} {bits:.2f}" for codec, bits in rates.items())
            told.append(f"{quality.mean:.1f} dB: {rate.mean:.2f}, {codecs}")
            cheaper += [row.name] if rate.mean < min(rates.values()) else []
    if told:
        yield Finding(
            "Depthwise codes beside image codecs",
            "new",
            f"Bits per pixel for the same PSNR on CIFAR-10, codecs on the mosaic of all images: {'; '.join(told)}. "
            f"Cheaper than all of them: {', '.join(cheaper) or 'none'}. As single files, 32 x 32 each, codecs cost "
            "more, see the plot. The tokenizer's codes are counted at log2 K bits, its weights not at all; it was "
            "trained on such images, the codecs on none.",
            "rate_distortion",
        )


def _levels_alone(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    """Fig. 4: which level the image is in."""
    told, signs = [], []
    for row in find_item("figure4").rows:
        result = book.first(row, scale)
        if result and (alone := result.figures.get("level_alone_psnr_db")):
            coarse, fine = alone
            told.append(f"{row.name}: {result.figures['psnr_db']:.1f}, {coarse:.1f}, {fine:.1f} dB")
            signs.append(1 if coarse > fine else -1)
    if signs:
        yield Finding(
            "The coarse level holds the structure, the fine one the details (Fig. 4)",
            _verdict(signs),
            f"PSNR of all test images from both levels, the coarse alone, the fine alone: {'; '.join(told)}. An "
            "image without its structure should lose more than one without its details. The maps of a level left out "
            "are zero, which the decoder has never seen.",
            "figure4",
        )


def _progressive(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    totals = {
        row.name: measured
        for row in find_item("progressive").rows
        if (measured := book.figure(row, scale, "total_bits_per_dim"))
    }
    grown, once, twice = (totals.get(name) for name in ("from-16-to-32", "from-scratch-1x", "from-scratch-2x"))
    if grown and once and twice:
        words = {-1: "better than", 0: "not to be told from", 1: "worse than"}
        spread = book.spread("total_bits_per_dim", scale, "logistic_mixture")
        than_once, than_twice = (words[sign_of_difference(grown, other, spread)] for other in (once, twice))
        yield Finding(
            "One model through growing image sizes",
            "new",
            f"32 x 32 behind 16 x 16 ends at {grown.mean:.3f} bits/dim in all. From scratch at 32 x 32, with as many "
            f"steps as that last stage: {once.mean:.3f}; with as many as both: {twice.mean:.3f}. Growing is "
            f"{than_once} the former and {than_twice} the latter, which costs more.",
            "progressive",
        )


def _verdict(signs: Sequence[int]) -> str:
    """Of comparisons that came out as claimed (1), against the claim (-1), or too close to tell (0)."""
    if all(sign > 0 for sign in signs):
        return "held"
    if any(sign > 0 for sign in signs):
        return "partly"
    return "failed" if any(sign < 0 for sign in signs) else "undecided"


Test = Callable[[Scale, ResultsBook], Iterator[Finding]]
"""Looks at one claim, and yields nothing where its rows have not been run."""
TESTS: tuple[Test, ...] = (
    _depthwise_is_lower,
    _shared_gains_little,
    _gain_grows,
    _codebooks_before_codes,
    _sizes_converge,
    _decoupled,
    _converges_sooner,
    _levels_alone,
    _digits,
    _headline,
    _others_at_equal_bits,
    _beside_codecs,
    _progressive,
)
TESTS_WITHOUT_SCALE: tuple[Test, ...] = (_density,)
"""Of rows that are the same at every scale."""
