"""What Table 2 says of quantizers as density estimators of features."""

from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

from studies.dq_paper.book import Measured, ResultsBook
from studies.dq_paper.comparison import sign_of_difference
from studies.dq_paper.findings.finding import Finding, counted, rows_of, verdict
from studies.dq_paper.scales import SCALES

NETWORK = "lite0"
COMMAND = f"table2 --rows {NETWORK} --data imagenet-sample=FOLDER efficientnet-lite0-weights=FILE"
CAVEAT = (
    "EfficientNet-lite0 on 400 images, not the paper's VGG-16. Deviations are of ten quantizers on the same 100 "
    "held-out images: they say how far training varies, not what other images would show."
)
Figures = Mapping[str, Any]


def channel_errs_less(scale: str, book: ResultsBook) -> Iterator[Finding]:
    yield from _by_channel(scale, book, "mse", -1, "describe features with less error", "squared error")


def channel_has_more_entropy(scale: str, book: ResultsBook) -> Iterator[Finding]:
    words = "entropy, nats, Miller-Madow"
    yield from _by_channel(scale, book, "entropy_miller_madow_nats", 1, "have the higher entropy", words)


def _by_channel(scale: str, book: ResultsBook, figure: str, sign: int, claim: str, what: str) -> Iterator[Finding]:
    pairs = _partners(_measured(scale, book), "row", "channel")
    if pairs:
        compared = {
            name: (_over_seeds(channel, figure), _over_seeds(row, figure)) for name, (row, channel) in pairs.items()
        }
        signs = [sign * sign_of_difference(channel, row) for channel, row in compared.values()]
        words = ("higher", "lower") if sign > 0 else ("lower", "higher")
        told = "; ".join(
            f"{name}: {channel.mean:.4g} against {row.mean:.4g}" for name, (channel, row) in compared.items()
        )
        yield Finding(
            f"Codebooks by channel {claim} than codebooks by row" if sign < 0 else f"Codebooks by channel {claim}",
            verdict(signs),
            f"By channel against by row ({what}, held-out maps). {told}. It is {counted(signs, *words)}. {CAVEAT}",
            COMMAND,
        )


def error_grows(scale: str, book: ResultsBook) -> Iterator[Finding]:
    grown = _partners(_measured(scale, book), "K32", "K1024")
    if grown:
        told, signs = [], []
        for on, words in (("training", "on the maps trained on"), ("held_out", "held out")):
            pairs = {
                name: tuple(figures[on]["mse_standardized"]["mean"] for figures in pair) for name, pair in grown.items()
            }
            told.append(
                f"{words}, " + ", ".join(f"{name} {few:.3g} to {many:.3g}" for name, (few, many) in pairs.items())
            )
            signs += [1 if many > few else -1 for few, many in pairs.values()]
        paper = {size: rows_of("table2")[f"vgg16-512-K{size}-channel"].paper["mse"] for size in (32, 1024)}
        yield Finding(
            "The error grows from K = 32 to K = 1024 (Table 2)",
            verdict(signs),
            f"Standardised: {'; '.join(told)}. In the paper, by channel, {paper[32]} to {paper[1024]}. On the maps "
            "that it was trained on, a converged quantizer of more codes cannot err more: the paper's were not "
            f"converged, or its two errors are on different scales. {CAVEAT}",
            COMMAND,
        )


def _measured(scale: str, book: ResultsBook) -> dict[str, Figures]:
    """What our network's rows found, by their names."""
    return {
        name: result.figures
        for name, row in rows_of("table2").items()
        if name.startswith(NETWORK) and (result := book.first(row, SCALES[scale]))
    }


def _partners(figures: Mapping[str, Figures], word: str, other: str) -> dict[str, tuple[Figures, Figures]]:
    """The figures of rows whose names differ in one word, by what is left of the name."""
    names = {name: name.replace(word, other) for name in figures if word in name.split("-")}
    return {
        name.replace(f"-{word}", ""): (figures[name], figures[partner])
        for name, partner in names.items()
        if partner in figures
    }


def _over_seeds(figures: Figures, name: str) -> Measured:
    """A held-out figure, over the quantizers of one row."""
    mean, deviation, seeds = *(figures["held_out"][name][part] for part in ("mean", "deviation")), figures["seeds"]
    if deviation is None:
        return Measured(mean)
    return Measured(mean, deviation, seeds, deviation / sqrt(seeds), seeds - 1, source=object())


FEATURES = (channel_errs_less, channel_has_more_entropy, error_grows)
