"""Results looked up by the rows that declare them: the mean and spread over seeds of any metric."""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any

from studies.dq_paper.declared import ITEMS, Row, find_item
from studies.dq_paper.keys import content_of, key_of
from studies.dq_paper.results import Result, ResultsStore
from studies.dq_paper.scales import SCALES, Scale

ENOUGH_SEEDS = 5
"""From how many seeds on a row's own deviation is to be trusted; below, that of its whole group is."""
_PROPORTIONAL = ("mse_normalized",)
"""Metrics whose deviation grows with their mean; that of others is taken for the same at any mean."""


@dataclass(frozen=True)
class SpreadGroup:
    """What rows of one scale have in common that have the same spread."""

    data: str
    likelihood: str
    quantizer: str


@dataclass(frozen=True)
class Measured:
    """A metric over the seeds of a row, and how far its mean is to be trusted."""

    mean: float
    deviation: float | None = None
    """Standard deviation over seeds (n - 1); None for one seed."""
    seeds: int = 1
    error: float = math.inf
    """Standard error of the mean; infinite where no spread is known."""
    degrees_of_freedom: int = 1
    """Of the deviation that the error rests on."""
    source: object = None
    """What that deviation is of: metrics with an equal one rest on the same deviation."""


@dataclass(frozen=True)
class Spread:
    """How much a metric varies from seed to seed, over several rows together."""

    deviation: float
    """Standard deviation; relative to the mean for metrics whose deviation grows with it."""
    degrees_of_freedom: int
    """Seeds beyond the first, of all those rows: with few, the deviation itself is uncertain."""


class RowResults:
    """The results of rows at one scale, seeds together; rows without a scale have the same ones at each.

    Args:
        scale_name: One of `SCALES`.
        by_key: Results by the key of their experiment with the first seed, the lowest seed first.
    """

    def __init__(self, scale_name: str, by_key: Mapping[str, list[Result]]):
        self.scale_name = scale_name
        self._by_key = by_key
        self._groups = {self._key(row): self._group(row) for item in map(find_item, ITEMS) for row in item.rows}

    @property
    def scale(self) -> Scale:
        return SCALES[self.scale_name]

    def at(self, scale_name: str) -> "RowResults":
        """Those of the same rows at another scale."""
        return RowResults(scale_name, self._by_key)

    @property
    def declared_keys(self) -> Iterable[str]:
        """Those of all rows that are declared, whether they have been run or not."""
        return self._groups

    def of(self, row: Row) -> list[Result]:
        """The results of a row, one per seed, the lowest seed first."""
        return self._by_key.get(self._key(row), [])

    def first(self, row: Row) -> Result | None:
        """The result of the lowest seed, which pictures and curves are of."""
        return next(iter(self.of(row)), None)

    def metric(self, row: Row, name: str) -> Measured | None:
        """A metric over the seeds of a row; None if the row has no results, or they have no such metric."""
        values = _values(self.of(row), name)
        if not values:
            return None
        mean, seeds = fmean(values), len(values)
        deviation = stdev(values) if seeds > 1 else None
        key = self._key(row)
        if deviation is not None and seeds >= ENOUGH_SEEDS:
            return Measured(mean, deviation, seeds, deviation / math.sqrt(seeds), seeds - 1, key)
        group = self._groups[key]
        spread = self.spread(name, group) if group else None
        if spread is None:
            return Measured(mean, deviation, seeds)
        error = spread.deviation * (abs(mean) if name in _PROPORTIONAL else 1) / math.sqrt(seeds)
        return Measured(mean, deviation, seeds, error, spread.degrees_of_freedom, group)

    def spread(self, name: str, group: SpreadGroup) -> Spread | None:
        """How far a metric of one seed may lie from that of another; None as long as no such row has several."""
        squares, freedom = 0.0, 0
        for key in (key for key, of_row in self._groups.items() if of_row == group):
            values = _values(self._by_key.get(key, []), name)
            if len(values) > 1:
                unit = fmean(values) if name in _PROPORTIONAL else 1.0
                squares += (len(values) - 1) * (stdev(values) / unit) ** 2
                freedom += len(values) - 1
        return Spread(math.sqrt(squares / freedom), freedom) if freedom else None

    def _key(self, row: Row) -> str:
        return _key_at(row, self.scale)

    def _group(self, row: Row) -> SpreadGroup | None:
        """None for what has no seed: codecs, and densities, which bring their own deviations."""
        if not row.has_scale:
            return None
        experiment = row.experiment(self.scale, seed=0)
        model = experiment.model  # type: ignore[attr-defined]
        return SpreadGroup(experiment.data, model.likelihood, model.quantizer)  # type: ignore[attr-defined]


@cache
def _key_at(row: Row, scale: Scale) -> str:
    return key_of(content_of(row.experiment(scale, seed=0)))


class DeclaredResults:
    """The results of a store that a row declares, at whichever scale.

    Results that no row declares are named in a warning and left out: they are of an older declaration, or another
    program's.

    Args:
        store: Where the results are.
    """

    def __init__(self, store: ResultsStore):
        by_key: dict[str, list[Result]] = {}
        for result in sorted(store.all(), key=lambda result: _seed(result.experiment)):
            by_key.setdefault(_key_without_seed(result.experiment), []).append(result)
        self._at = {name: RowResults(name, by_key) for name in SCALES}
        declared = {key for results in self._at.values() for key in results.declared_keys}
        for key in by_key.keys() - declared:
            _warn_of_undeclared(by_key.pop(key))
        self._by_key = by_key

    def at(self, scale_name: str) -> RowResults:
        """Those at one scale."""
        return self._at[scale_name]

    def all(self) -> list[Result]:
        """Every one of them."""
        return [result for results in self._by_key.values() for result in results]


def _warn_of_undeclared(results: list[Result]) -> None:
    for result in results:
        warnings.warn(
            f"{result.file} must be of a row that is declared; got one of another configuration; left out; delete it",
            stacklevel=3,
        )


def _values(results: list[Result], name: str) -> list[float]:
    return [value for result in results if (value := result.figures.get(name)) is not None]


def _key_without_seed(content: Mapping[str, Any]) -> str:
    """That of the same experiment with the first seed."""
    training = content.get("training")
    return key_of({**content, "training": {**training, "seed": 0}} if training else content)


def _seed(content: Mapping[str, Any]) -> int:
    return content.get("training", {}).get("seed", 0)
