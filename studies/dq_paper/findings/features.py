"""What Table 2 says of quantizers as density estimators of features."""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

from studies.dq_paper.comparison import sign_of_difference
from studies.dq_paper.declared import Row, find_item, row_with
from studies.dq_paper.findings.finding import Finding, count_signs, verdict
from studies.dq_paper.row_results import Measured, RowResults

COMMAND = (
    "table2 --rows lite0 lite1 lite2 --data imagenet-sample=FOLDER efficientnet-lite0-weights=FILE "
    "efficientnet-lite1-weights=FILE efficientnet-lite2-weights=FILE"
)
CAVEAT = (
    "EfficientNet-lite0, -lite1 and -lite2 on 400 images, not the paper's VGG-16. Deviations are of ten quantizers on "
    "the same 100 held-out images: they say how far training varies, not what other images would show."
)
Density = Mapping[str, Any]
"""What a row of Table 2 found, see `depthq.features.density`."""


def channel_errs_less(results: RowResults) -> Iterator[Finding]:
    claim = "Codebooks by channel describe features with less error than codebooks by row"
    yield from _by_channel(results, "mse", -1, claim, "squared error")


def channel_has_more_entropy(results: RowResults) -> Iterator[Finding]:
    claim = "Codebooks by channel have the higher entropy"
    yield from _by_channel(results, "entropy_miller_madow_nats", 1, claim, "entropy, nats, Miller-Madow")


def _by_channel(results: RowResults, metric: str, sign: int, claim: str, what: str) -> Iterator[Finding]:
    compared = {
        name: (_over_seeds(channel, metric), _over_seeds(row, metric))
        for name, (row, channel) in _partners(results, "axis", "row", "channel").items()
    }
    if compared:
        signs = [sign * sign_of_difference(channel, row) for channel, row in compared.values()]
        words = ("higher", "lower") if sign > 0 else ("lower", "higher")
        means = "; ".join(
            f"{name}: {channel.mean:.4g} against {row.mean:.4g}" for name, (channel, row) in compared.items()
        )
        yield Finding(
            claim,
            verdict(signs),
            f"By channel against by row ({what}, held-out maps). {means}. It is {count_signs(signs, *words)}. {CAVEAT}",
            COMMAND,
            paper=words[0],
            ours=count_signs(signs, *words),
        )


def error_grows(results: RowResults) -> Iterator[Finding]:
    grown = _partners(results, "codebook_size", 32, 1024)
    if grown:
        on_training, on_held_out = (
            {name: (_standardized(few, on), _standardized(many, on)) for name, (few, many) in grown.items()}
            for on in ("training", "held_out")
        )
        signs = [1 if many > few else -1 for few, many in (*on_training.values(), *on_held_out.values())]
        few, many = (row_with("table2", weights="", axis="channel", codebook_size=size) for size in (32, 1024))
        yield Finding(
            "The error grows from K = 32 to K = 1024 (Table 2)",
            verdict(signs),
            f"Standardised: on the maps trained on, {_in_numbers(on_training)}; held out, {_in_numbers(on_held_out)}. "
            f"In the paper, by channel, {few.paper['mse']} to {many.paper['mse']}. On the maps "
            "that it was trained on, a converged quantizer of more codes cannot err more: the paper's were not "
            f"converged, or its two errors are on different scales. {CAVEAT}",
            COMMAND,
            paper=f"{few.paper['mse']} to {many.paper['mse']}",
            ours=_in_words(list(on_held_out.values())),
        )


def _in_numbers(pairs: Mapping[str, tuple[float, float]]) -> str:
    return ", ".join(f"{name} {few:.3g} to {many:.3g}" for name, (few, many) in pairs.items())


def _in_words(pairs: Sequence[tuple[float, float]]) -> str:
    falls = sum(many < few for few, many in pairs)
    few, many = pairs[0]
    return f"falls in {falls} of {len(pairs)} rows, {few:.3g} to {many:.3g} in the first"


def _standardized(density: Density, on: str) -> float:
    return density[on]["mse_standardized"]["mean"]


def _partners(results: RowResults, setting: str, value: Any, other: Any) -> dict[str, tuple[Density, Density]]:
    """What our networks' rows found that differ in one setting alone, by the name without it."""
    ours = [row for row in find_item("table2").rows if not row.has(weights="") and results.first(row)]
    return {
        row.name_without(f"K{value}" if setting == "codebook_size" else value): (
            _density(row, results),
            _density(partner, results),
        )
        for row in ours
        for partner in ours
        if row.has(**{setting: value}) and partner.has(**{setting: other}) and row.is_like(partner, but_for=setting)
    }


def _density(row: Row, results: RowResults) -> Density:
    result = results.first(row)
    assert result
    return result.figures


def _over_seeds(density: Density, name: str) -> Measured:
    """A held-out metric, over the quantizers of one row."""
    mean, deviation, seeds = *(density["held_out"][name][part] for part in ("mean", "deviation")), density["seeds"]
    if deviation is None:
        return Measured(mean)
    return Measured(mean, deviation, seeds, deviation / sqrt(seeds), seeds - 1, source=object())


FEATURES = (channel_errs_less, channel_has_more_entropy, error_grows)
