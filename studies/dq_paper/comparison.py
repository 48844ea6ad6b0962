"""What rows say beside each other: depthwise against shared, how soon, and at what rate."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from studies.dq_paper.book import Measured, ResultsBook
from studies.dq_paper.declared import Item, Row
from studies.dq_paper.scales import Scale

Fraction = tuple[Measured, Measured]
"""Numerator and denominator."""
CONFIDENCE = 0.95
"""Of the two-sided test that calls a difference clear."""
LOSSES = {
    "mse_normalized": ("l2",),
    "psnr_db": ("l2",),
    "nll_nats_per_dim": ("categorical", "logistic_mixture"),
}
"""Figures that are a loss, or tell the same, and the likelihoods that are trained on it: of other networks they
compare nothing."""


def sign_of_difference(a: Measured, b: Measured) -> int:
    """-1 if a is clearly lower than b, 1 if it is clearly higher, 0 if the runs cannot tell (Welch's t-test)."""
    return _clear_sign(a.mean - b.mean, [(figure, figure.error) for figure in (a, b)])


def sign_of_change(a: Fraction, b: Fraction) -> int:
    """As `sign_of_difference`, of two ratios, each a numerator and a denominator; they are compared as logarithms."""
    relative = [(figure, figure.error / abs(figure.mean)) for figure in (*a, *b)]
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
    for figure, error in errors:
        key = figure.source, figure.degrees_of_freedom
        variances[key] = variances.get(key, 0.0) + error**2
    total = sum(variances.values())
    if total == 0:
        return int(np.sign(difference))
    freedom = total**2 / sum(variance**2 / freedom for (_, freedom), variance in variances.items())
    margin = t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(total)
    return int(np.sign(difference)) if abs(difference) > margin else 0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A figure of the depthwise and the shared row of the same name, ours and the paper's; None where there is none."""

    name: str
    """The rows' name without the quantizer."""
    depthwise: Measured | None
    shared: Measured | None
    paper_depthwise: float | None
    paper_shared: float | None
    is_same_network: bool
    """With one codebook there is nothing to share."""

    @property
    def ratio(self) -> float | None:
        """Depthwise over shared, of the means."""
        return self.depthwise.mean / self.shared.mean if self.depthwise and self.shared else None

    @property
    def paper_ratio(self) -> float | None:
        """The paper's."""
        return self.paper_depthwise / self.paper_shared if self.paper_depthwise and self.paper_shared else None

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


def pairs_of(item: Item, scale: Scale, book: ResultsBook, figure: str) -> Iterator[Pair]:
    """The pairs of an item's rows that have the figure, ours or the paper's; a loss, of those trained on it alone."""
    for depthwise, shared in row_pairs(item):
        likelihood = depthwise.experiment(scale, 0).model.likelihood  # type: ignore[attr-defined]
        if likelihood not in LOSSES.get(figure, [likelihood]):
            continue
        pair = Pair(
            name=base_of(depthwise),
            depthwise=book.figure(depthwise, scale, figure),
            shared=book.figure(shared, scale, figure) if shared else None,
            paper_depthwise=depthwise.paper.get(figure),
            paper_shared=shared.paper.get(figure) if shared else None,
            is_same_network=shared is not None and depthwise.experiment(scale, 0) == shared.experiment(scale, 0),
        )
        if pair.depthwise or pair.shared or pair.paper_depthwise is not None or pair.paper_shared is not None:
            yield pair


def compared_pairs(item: Item, scale: Scale, book: ResultsBook, figure: str) -> list[Pair]:
    """The pairs with both of ours; those of one network are left out."""
    return [pair for pair in pairs_of(item, scale, book, figure) if pair.is_compared]


def row_pairs(item: Item) -> Iterator[tuple[Row, Row | None]]:
    """Each depthwise row, and the shared one of the same name if there is one."""
    rows = {row.name: row for row in item.rows}
    for name, row in rows.items():
        if name.endswith("depthwise"):
            yield row, rows.get(name.removesuffix("depthwise") + "shared")


def base_of(row: Row) -> str:
    """A row's name without the quantizer."""
    return row.name.removesuffix("depthwise").removesuffix("shared").removesuffix("-") or "all"


@dataclass(frozen=True, kw_only=True)
class Race:
    """How soon a depthwise run measures what the shared one measures at its best, on the validation images."""

    name: str
    figure: str
    goal: float
    """The shared run's lowest."""
    goal_at: int
    """Its step."""
    reached_at: int | None
    """The first measured step at which the depthwise run is as low; None if it never is."""
    every: int
    """Steps between measurements."""
    is_goal_at_end: bool
    """Whether that lowest is the shared run's last."""

    @property
    def is_sooner(self) -> int:
        """Whether it took fewer steps than the shared run: 1 yes, -1 no, 0 if both are measured at the same step."""
        return -1 if self.reached_at is None else int(np.sign(self.goal_at - self.reached_at))

    def is_within(self, share: float) -> int:
        """Whether it took at most a share of the shared run's steps: 1 yes, -1 no, 0 if measurements are too sparse."""
        if self.reached_at is None or self.reached_at - self.every >= share * self.goal_at:
            return -1
        return 1 if self.reached_at <= share * self.goal_at else 0


def convergence(item: Item, scale: Scale, book: ResultsBook) -> Iterator[Race]:
    """The races that both sides of have been run, by their first seeds."""
    for depthwise, shared in row_pairs(item):
        ours = book.first(depthwise, scale)
        theirs = book.first(shared, scale) if shared else None
        if ours is None or theirs is None:
            continue
        figure = "nll_bits_per_dim" if "nll_bits_per_dim" in ours.curve else "mse_normalized"
        best = int(np.argmin(theirs.curve[figure]))
        goal = theirs.curve[figure][best]
        low = [int(step) for step, value in zip(ours.curve["step"], ours.curve[figure], strict=True) if value <= goal]
        yield Race(
            name=base_of(depthwise),
            figure=figure,
            goal=goal,
            goal_at=int(theirs.curve["step"][best]),
            reached_at=min(low, default=None),
            every=ours.experiment["training"]["validate_every"],
            is_goal_at_end=best == len(theirs.curve[figure]) - 1,
        )


def rate_at_quality(item: Item, book: ResultsBook, scale: Scale, codec: str, psnr_db: float) -> float | None:
    """Bits per pixel at which a codec has a PSNR, linear between the qualities measured; None outside of them."""
    points = rate_distortion_points(item, book, scale, codec)
    if not points or not points[0][1] <= psnr_db <= max(quality for _, quality in points):
        return None
    rates, qualities = zip(*points, strict=True)
    return float(np.interp(psnr_db, np.maximum.accumulate(qualities), rates))


def rate_distortion_points(item: Item, book: ResultsBook, scale: Scale, name: str) -> list[tuple[float, float]]:
    """(bits per pixel, PSNR in dB) of the rows whose names start with a quantizer or codec, in ascending order."""
    points = []
    for row in item.rows:
        rate = book.figure(row, scale, "bits_per_pixel" if row.kind == "codec" else "code_bits_per_pixel")
        quality = book.figure(row, scale, "psnr_db")
        if row.matches(name) and rate and quality:
            points.append((rate.mean, quality.mean))
    return sorted(points)
