"""docs/findings.md: each claim of the paper, whether it holds in our results, and the numbers that say so."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from depthq.reproduce.book import ResultsBook
from depthq.reproduce.comparison import Pair, convergence, pairs_of, rate_at_quality
from depthq.reproduce.declared import find_item
from depthq.reproduce.scales import Scale
from depthq.units import nats_to_bits

HEADINGS = {
    "held": "What held up",
    "partly": "What held up in part",
    "failed": "What did not",
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
        f"Scale `{scale_name}`: {scale.protocol}. A claim about many rows holds if it does in every row that was run "
        "for both quantizers. One or two seeds say nothing about small differences, and networks this small and runs "
        "this short nothing about the figures that large ones reach: directions and ratios are what to take from here.",
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
        "mse_normalized": ("Depthwise codes reconstruct better than shared ones at the same bits", "squared error"),
        "nll_nats_per_dim": ("Depthwise codes explain images better than shared ones at the same bits", "nats"),
    }
    for figure, (claim, what) in claims.items():
        pairs = _compared(("table3", "table4"), figure, scale, book)
        if pairs:
            ours = [pair.ratio for pair in pairs if pair.ratio is not None]
            papers = [pair.paper_ratio for pair in pairs if pair.paper_ratio is not None]
            lower = sum(ratio < 1 for ratio in ours)
            yield Finding(
                claim,
                _verdict(lower, len(ours)),
                f"In {lower} of {len(ours)} rows of Tables 3 and 4. On average the {what} of depthwise codes is "
                f"{fmean(ours):.2f} times that of shared ones; the paper's in the same rows: {fmean(papers):.2f}.",
                "table3 table4",
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
            _verdict(falling, len(complete)),
            "Squared error, depthwise over shared, for M = 1, 3, 5, 10, a series for each K: "
            f"{shown}. It falls throughout in {falling} of {len(complete)}.",
            'table3 --rows "*-l2-*"',
        )


def _codebooks_before_codes(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    """App. A.3 says that M limits the capacity and not K, but grows M tenfold and log K by less than two."""
    rows = {row.name: row for row in find_item("table3").rows}
    names = [f"M{m}-K{k}-l2-depthwise" for m, k in ((5, 32), (3, 128), (3, 512))]
    papers = [rows[name].paper["mse_normalized"] for name in names]
    ours = [measured.mean for name in names if (measured := book.figure(rows[name], scale, "mse_normalized"))]
    if len(ours) == len(names):
        yield Finding(
            "It is the number of codebooks that limits capacity, not their size",
            "held" if ours[0] < _at_25_bits(ours) else "failed",
            "Not at equal bits. Five codebooks of 32 codes have 25 bits per position; three have 21 with 128 codes and "
            f"27 with 512. Error of the five: {ours[0]:.4f}; of the three at 25 bits, log-linear in between: "
            f"{_at_25_bits(ours):.4f}. The paper's own figures say the same: {papers[0]:.4f} against "
            f"{_at_25_bits(papers):.4f}. Its ablation grows M by 10 and log K by 1.8.",
            'table3 --rows "*-l2-depthwise"',
        )


def _at_25_bits(errors: Sequence[float]) -> float:
    """Between the errors at 21 and at 27 bits, which are the last two."""
    share = (25 - 21) / (27 - 21)
    return math.exp((1 - share) * math.log(errors[1]) + share * math.log(errors[2]))


def _decoupled(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    claims = {
        "mean_mutual_information_nats": ("Depthwise codebooks share less information than shared ones", -1),
        "mean_entropy_nats": ("A depthwise code says more than a shared one: its entropy is higher", 1),
    }
    for figure, (claim, sign) in claims.items():
        pairs = _compared(("decoupling",), figure, scale, book)
        if pairs:
            as_claimed = sum(sign * (pair.ratio or 1) > sign for pair in pairs)
            evidence = "; ".join(map(_against, pairs)) + " nats, depthwise against shared."
            yield Finding(claim, _verdict(as_claimed, len(pairs)), evidence, "decoupling")


def _against(pair: Pair) -> str:
    assert pair.depthwise
    assert pair.shared
    ours = f"{pair.name}: {pair.depthwise.mean:.3f} against {pair.shared.mean:.3f}"
    return ours + (f" (paper: {pair.paper_depthwise} against {pair.paper_shared})" if pair.paper_ratio else "")


def _converges_sooner(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    races = list(convergence(find_item("convergence"), scale, book))
    if races:
        in_time = [race for race in races if race.reached_at and race.reached_at <= QUARTER * race.steps]
        told = "; ".join(
            f"{race.name}: step {race.reached_at} of {race.steps}" if race.reached_at else f"{race.name}: never"
            for race in races
        )
        yield Finding(
            "Depthwise reaches the best of shared in a quarter of the steps",
            _verdict(len(in_time), len(races)),
            f"{told}. Both runs have the same schedule.",
            "convergence",
        )


def _headline(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    (row,) = [row for row in find_item("table1").rows if row.name == "cifar10-depthwise"]
    ours = book.first(row, scale)
    if ours is None:
        return
    printed = row.paper["nll_nats_per_dim"]
    bits, code_bits = nats_to_bits(printed), ours.figures["code_bits_per_dim"]
    own = ", ".join(
        f"{ours.figures[name]:.2f} {unit}"
        for name, unit in (
            ("nll_nats_per_dim", "nats/dim for the image"),
            ("nll_bits_per_dim", "bits/dim"),
            ("total_bits_per_dim", "bits/dim with the codes"),
        )
    )
    yield Finding(
        "2.52 bits/dim on CIFAR-10 (Table 1)",
        "failed",
        f"The same {printed} stands in Table 4 as nats per dim, and the public code never divides by ln 2: it is "
        f"{bits:.2f} bits/dim. The codes that the image is then given cost up to {code_bits:.2f} bits/dim more "
        f"(uniform prior), and are left out. What compares with VD-VAE's 2.80 or with a PNG file is therefore up to "
        f"{bits + code_bits:.2f} bits/dim: the headline's lead over likelihood models is one of units and omissions. "
        f"Ours, at this scale: {own}.",
        "table1 --rows cifar10",
    )


def _density(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    figures = {row.name: result.figures for row in find_item("table2").rows if (result := book.first(row, scale))}
    pairs = [
        (figures[name], figures[name.removesuffix("row") + "channel"]) for name in figures if name.endswith("-row")
    ]
    if not pairs:
        return
    for figure, claim, sign in (
        ("mse", "Codebooks by channel describe features with less error than codebooks by row", -1),
        ("entropy_miller_madow_nats", "Codebooks by channel have the higher entropy", 1),
    ):
        as_claimed = sum(sign * (_mean(channel, figure) - _mean(row, figure)) > 0 for row, channel in pairs)
        told = "; ".join(f"{_mean(channel, figure):.4g} against {_mean(row, figure):.4g}" for row, channel in pairs)
        yield Finding(
            claim,
            _verdict(as_claimed, len(pairs)),
            f"On held-out maps of EfficientNet-lite0, by channel against by row: {told}.",
            "table2 --rows lite0",
        )
    grown = [
        (_mean(figures[name], "mse"), _mean(figures[name.replace("K32", "K1024")], "mse"))
        for name in figures
        if "-K32-" in name
    ]
    yield Finding(
        "The error grows from K = 32 to K = 1024 (Table 2)",
        _verdict(sum(large > small for small, large in grown), len(grown)),
        f"{'; '.join(f'{small:.4g} to {large:.4g}' for small, large in grown)}. A converged quantizer with more codes "
        "cannot err more on what it was trained on; the paper's 0.184 to 0.480 points to codebooks that died or never "
        "converged.",
        "table2 --rows lite0",
    )


def _mean(figures: dict, name: str) -> float:
    return figures["held_out"][name]["mean"]


def _digits(scale: Scale, book: ResultsBook) -> Iterator[Finding]:
    pairs = _compared(("mnist",), "mse_normalized", scale, book)
    for pair in pairs:
        assert pair.ratio is not None
        yield Finding(
            "MNIST: depthwise reconstructs better than shared",
            _verdict(int(pair.ratio < 1), 1),
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
        row.name: measured.mean
        for row in find_item("progressive").rows
        if (measured := book.figure(row, scale, "total_bits_per_dim"))
    }
    grown, once, twice = (totals.get(name) for name in ("from-16-to-32", "from-scratch-1x", "from-scratch-2x"))
    if grown and once and twice:
        yield Finding(
            "One model through growing image sizes",
            "new",
            f"32 x 32 behind 16 x 16 ends at {grown:.3f} bits/dim in all. From scratch at 32 x 32, with as many steps "
            f"as that last stage: {once:.3f}; with as many as both stages: {twice:.3f}. Growing is "
            f"{'better' if grown < once else 'worse'} than the former and {'better' if grown < twice else 'worse'} "
            "than the latter, whose steps at 32 x 32 cost more than those at 16 x 16.",
            "progressive",
        )


def _compared(items: Iterable[str], figure: str, scale: Scale, book: ResultsBook) -> list[Pair]:
    """Pairs that both have results, and are not one network."""
    pairs = [pair for name in items for pair in pairs_of(find_item(name), scale, book, figure)]
    return [pair for pair in pairs if pair.ratio is not None and not pair.is_same_network]


def _verdict(as_claimed: int, of: int) -> str:
    return "held" if as_claimed == of else "partly" if as_claimed else "failed"


TESTS: tuple[Callable[[Scale, ResultsBook], Iterator[Finding]], ...] = (
    _depthwise_is_lower,
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
