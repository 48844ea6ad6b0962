"""What rows say beside each other: depthwise against shared, how soon, and at what rate."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from studies.dq_paper.declared import Item, Row
from studies.dq_paper.results import Result
from studies.dq_paper.row_results import Measured, RowResults

Fraction = tuple[Measured, Measured]
"""Numerator and denominator."""
CONFIDENCE = 0.95
"""Of the two-sided test that calls a difference clear."""
LOSSES = {
    "mse_normalized": ("l2",),
    "psnr_db": ("l2",),
    "nll_nats_per_dim": ("categorical", "logistic_mixture"),
}
"""Metrics that are a loss, or say the same, and the likelihoods that are trained on it: of other networks they
compare nothing."""


def sign_of_difference(a: Measured, b: Measured) -> int:
    """-1 if a is clearly lower than b, 1 if it is clearly higher, 0 if the runs cannot tell (Welch's t-test)."""
    return _clear_sign(a.mean - b.mean, [(metric, metric.error) for metric in (a, b)])


def sign_of_change(a: Fraction, b: Fraction) -> int:
    """As `sign_of_difference`, of two ratios, each a numerator and a denominator; they are compared as logarithms."""
    relative = [(metric, metric.error / abs(metric.mean)) for metric in (*a, *b)]
    return _clear_sign(math.log(ratio_of(a) / ratio_of(b)), relative)


def ratio_of(fraction: Fraction) -> float:
    """Of the means."""
    numerator, denominator = fraction
    return numerator.mean / denominator.mean


def _clear_sign(difference: float, errors: Sequence[tuple[Measured, float]]) -> int:
    """Degrees of freedom by Welch and Satterthwaite; errors that rest on one deviation count as one."""
    if not all(math.isfinite(error) for _, error in errors):
        return 0
    variances: dict[tuple, float] = {}
    for metric, error in errors:
        key = metric.source, metric.degrees_of_freedom
        variances[key] = variances.get(key, 0.0) + error**2
    total = sum(variances.values())
    if total == 0:
        return int(np.sign(difference))
    freedom = total**2 / sum(variance**2 / freedom for (_, freedom), variance in variances.items())
    margin = t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(total)
    return int(np.sign(difference)) if abs(difference) > margin else 0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A metric of a depthwise row and of the shared one like it, ours and the paper's; None where there is none."""

    row: Row
    """The depthwise one."""
    depthwise: Measured | None
    shared: Measured | None
    paper_depthwise: float | None
    paper_shared: float | None
    is_same_network: bool
    """With one codebook there is nothing to share."""

    @property
    def name(self) -> str:
        return pair_name(self.row)

    @property
    def ratio(self) -> float | None:
        """Depthwise over shared, of the means."""
        return self.depthwise.mean / self.shared.mean if self.depthwise and self.shared else None

    @property
    def paper_ratio(self) -> float | None:
        """The paper's."""
        return self.paper_depthwise / self.paper_shared if self.paper_depthwise and self.paper_shared else None

    @property
    def is_known(self) -> bool:
        """Whether any of the four is there."""
        papers = self.paper_depthwise, self.paper_shared
        return bool(self.depthwise or self.shared) or any(metric is not None for metric in papers)

    @property
    def is_compared(self) -> bool:
        """Whether both have been run, and are two networks."""
        return bool(self.depthwise and self.shared) and not self.is_same_network

    @property
    def sign(self) -> int:
        """Of depthwise minus shared, as `sign_of_difference`: 0 if it is not clear."""
        assert self.depthwise
        assert self.shared
        return sign_of_difference(self.depthwise, self.shared)

    @property
    def direction(self) -> int:
        """Of depthwise minus shared, clear or not."""
        assert self.depthwise
        assert self.shared
        return int(np.sign(self.depthwise.mean - self.shared.mean))

    @property
    def is_as_in_paper(self) -> bool | None:
        """Whether the paper's difference has the same direction; None if the paper has none."""
        if self.paper_ratio is None:
            return None
        return self.direction == (1 if self.paper_ratio > 1 else -1)


def pairs_of(item: Item, results: RowResults, metric: str) -> Iterator[Pair]:
    """The pairs of an item's rows that have the metric, ours or the paper's; a loss, of those trained on it alone."""
    for depthwise, shared in row_pairs(item.rows):
        if depthwise.likelihood not in LOSSES.get(metric, [depthwise.likelihood]):
            continue
        networks = [row.experiment(results.scale, seed=0) for row in (depthwise, shared) if row]
        pair = Pair(
            row=depthwise,
            depthwise=results.metric(depthwise, metric),
            shared=results.metric(shared, metric) if shared else None,
            paper_depthwise=depthwise.paper.get(metric),
            paper_shared=shared.paper.get(metric) if shared else None,
            is_same_network=shared is not None and networks[0] == networks[1],
        )
        if pair.is_known:
            yield pair


def compared_pairs(item: Item, results: RowResults, metric: str) -> list[Pair]:
    """The pairs with both of ours; those of one network are left out."""
    return [pair for pair in pairs_of(item, results, metric) if pair.is_compared]


def row_pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, Row | None]]:
    """Each depthwise row, and the shared one that is like it in all else if there is one."""
    for depthwise in rows:
        if depthwise.quantizer == "depthwise":
            shared = (row for row in rows if row.quantizer == "shared" and row.is_like(depthwise, but_for="quantizer"))
            yield depthwise, next(shared, None)


def with_partners(item: Item, chosen: Sequence[Row]) -> list[Row]:
    """The item's rows that are chosen, or in a pair with one that is."""
    pairs = [pair for pair in row_pairs(item.rows) if any(row in chosen for row in pair)]
    return [row for row in item.rows if row in chosen or any(row in pair for pair in pairs)]


def pair_name(row: Row) -> str:
    """A row's name without the quantizer."""
    return row.name_without(row.quantizer or "") or "all"


@dataclass(frozen=True, kw_only=True)
class StepsToMatch:
    """How soon a depthwise run measures what the shared one measures at its best, on the validation images."""

    name: str
    metric: str
    best: float
    """The shared run's lowest."""
    best_step: int
    """When it was measured."""
    matched_step: int | None
    """The first measured step at which the depthwise run is as low; None if it never is."""
    interval: int
    """Steps between measurements."""
    is_best_last: bool
    """Whether that lowest is the shared run's last."""

    @property
    def is_sooner(self) -> int:
        """Whether it took fewer steps than the shared run: 1 yes, -1 no, 0 if both are measured at the same step."""
        return -1 if self.matched_step is None else int(np.sign(self.best_step - self.matched_step))

    def is_within(self, share: float) -> int:
        """Whether it took at most a share of the shared run's steps: 1 yes, -1 no, 0 if measurements are too sparse."""
        if self.matched_step is None or self.matched_step - self.interval >= share * self.best_step:
            return -1
        return 1 if self.matched_step <= share * self.best_step else 0


def steps_to_match(item: Item, results: RowResults) -> Iterator[StepsToMatch]:
    """Of the pairs that have both been run, by their first seeds."""
    for depthwise, shared in row_pairs(item.rows):
        ours = results.first(depthwise)
        theirs = results.first(shared) if shared else None
        if ours and theirs:
            yield _steps_to_match(pair_name(depthwise), ours, theirs)


def _steps_to_match(name: str, ours: Result, theirs: Result) -> StepsToMatch:
    metric = "nll_bits_per_dim" if "nll_bits_per_dim" in ours.curve else "mse_normalized"
    place = int(np.argmin(theirs.curve[metric]))
    best = theirs.curve[metric][place]
    low = [int(step) for step, value in zip(ours.curve["step"], ours.curve[metric], strict=True) if value <= best]
    return StepsToMatch(
        name=name,
        metric=metric,
        best=best,
        best_step=int(theirs.curve["step"][place]),
        matched_step=min(low, default=None),
        interval=ours.experiment["training"]["validate_every"],
        is_best_last=place == len(theirs.curve[metric]) - 1,
    )


def codec_rows(item: Item, codec: str, arrangement: str) -> list[Row]:
    """A codec's rows, one per quality."""
    return [row for row in item.rows if row.has(kind="codec", codec=codec, arrangement=arrangement)]


def rate_at_quality(rows: Sequence[Row], results: RowResults, psnr_db: float) -> float | None:
    """Bits per pixel at which a codec's rows have a PSNR, linear between them; None outside of what was measured."""
    points = rate_distortion_points(rows, results)
    if not points or not points[0][1] <= psnr_db <= max(quality for _, quality in points):
        return None
    rates, qualities = zip(*points, strict=True)
    return float(np.interp(psnr_db, np.maximum.accumulate(qualities), rates))


def rate_distortion_points(rows: Sequence[Row], results: RowResults) -> list[tuple[float, float]]:
    """(bits per pixel, PSNR in dB) of those rows that have been run, in ascending order."""
    points = []
    for row in rows:
        rate, quality = rate_of(row, results), results.metric(row, "psnr_db")
        if rate and quality:
            points.append((rate.mean, quality.mean))
    return sorted(points)


def rate_of(row: Row, results: RowResults) -> Measured | None:
    """Bits per pixel, of a codec's files or of codes."""
    return results.metric(row, "bits_per_pixel" if row.kind == "codec" else "code_bits_per_pixel")


def joint_entropy(result: Result) -> tuple[float, float] | None:
    """Bounds in nats on the joint entropy of a position's codes, of results of one level; None without codes.

    Below, the entropy of the pair that says most; above, the sum of all entropies less the mutual information of the
    maximum spanning tree, which the results hold as the lower bound of total correlation.
    """
    if result.codes is None or len(result.codes["levels"]) != 1:
        return None
    entropies = result.codes["levels"][0]["entropy_nats"]
    if len(entropies) == 1:
        return entropies[0], entropies[0]
    information = result.codes["mutual_information"][0]
    whole = sum(entropies)
    return whole - information["total_correlation_upper_nats"], whole - information["total_correlation_lower_nats"]


def capacity(result: Result) -> float:
    """M ln K in nats: what a position's codes could tell, of results with codes of one level."""
    assert result.codes
    return sum(map(math.log, result.codes["levels"][0]["codebook_sizes"]))


def share_used(result: Result | None) -> float | None:
    """The most that the joint entropy can be, over the capacity; None where either is not known."""
    if result is None or (bounds := joint_entropy(result)) is None:
        return None
    return bounds[1] / capacity(result)
