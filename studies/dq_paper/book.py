"""All results, looked up by the rows that declare them: the mean and spread over seeds of any figure."""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from studies.dq_paper.declared import ITEMS, Row, find_item
from studies.dq_paper.experiment import content_of
from studies.dq_paper.results import Result, ResultsStore
from studies.dq_paper.scales import SCALES, Scale

ENOUGH_SEEDS = 5
"""From how many seeds on a row's own deviation is to be trusted; below, that of all its kin together is."""
_PROPORTIONAL = ("mse_normalized",)
"""Figures whose deviation grows with their mean; that of others is taken for the same at any mean."""

Kin = tuple[str, str, str, str]
"""Scale, data set, likelihood and quantizer: rows of the same have the same spread."""


@dataclass(frozen=True)
class Measured:
    """A figure over the seeds of a row, and how far its mean is to be trusted."""

    mean: float
    deviation: float | None = None
    """Standard deviation over seeds (n - 1); None for one seed."""
    seeds: int = 1
    error: float = math.inf
    """Standard error of the mean; infinite where no spread is known."""
    degrees_of_freedom: int = 1
    """Of the deviation that the error rests on."""
    source: object = None
    """What that deviation is of: figures with an equal one rest on the same deviation."""


@dataclass(frozen=True)
class Spread:
    """How much a figure varies from seed to seed, over several rows together."""

    deviation: float
    """Standard deviation; relative to the mean for figures whose deviation grows with it."""
    degrees_of_freedom: int
    """Seeds beyond the first, of all those rows: with few, the deviation itself is uncertain."""


class ResultsBook:
    """The results of a store by what they are of, seeds together.

    Results that no row declares are named in a warning and left out: they are of an older declaration, or another
    program's.

    Args:
        store: Where the results are.
    """

    def __init__(self, store: ResultsStore):
        self._results: dict[str, list[Result]] = {}
        for result in store.all():
            self._results.setdefault(_without_seed(result.experiment), []).append(result)
        for results in self._results.values():
            results.sort(key=lambda result: _seed(result.experiment))
        self._kin: dict[str, Kin | None] = {
            _row_key(row, scale): _kin_of(row, scale_name)
            for item in map(find_item, ITEMS)
            for row in item.rows
            for scale_name, scale in SCALES.items()
        }
        self._leave_out_undeclared()

    def _leave_out_undeclared(self) -> None:
        for key in self._results.keys() - self._kin.keys():
            for result in self._results.pop(key):
                warnings.warn(
                    f"{result.file} must be of a row that is declared; got one of another configuration; left out; "
                    "delete it",
                    stacklevel=3,
                )

    def of(self, row: Row, scale: Scale) -> list[Result]:
        """The results of a row, one per seed, the lowest seed first."""
        return self._results.get(_row_key(row, scale), [])

    def first(self, row: Row, scale: Scale) -> Result | None:
        """The result of the lowest seed, which pictures and curves are of."""
        return next(iter(self.of(row, scale)), None)

    def figure(self, row: Row, scale: Scale, name: str) -> Measured | None:
        """A figure over the seeds of a row; None if the row has no results, or they have no such figure."""
        values = _values(self.of(row, scale), name)
        if not values:
            return None
        mean, seeds = fmean(values), len(values)
        deviation = stdev(values) if seeds > 1 else None
        kin = self._kin[_row_key(row, scale)]
        if deviation is not None and seeds >= ENOUGH_SEEDS:
            return Measured(mean, deviation, seeds, deviation / math.sqrt(seeds), seeds - 1, _row_key(row, scale))
        spread = self.spread(name, kin) if kin else None
        if spread is None:
            return Measured(mean, deviation, seeds)
        error = spread.deviation * (abs(mean) if name in _PROPORTIONAL else 1) / math.sqrt(seeds)
        return Measured(mean, deviation, seeds, error, spread.degrees_of_freedom, kin)

    def spread(self, name: str, kin: Kin) -> Spread | None:
        """How far a figure of one seed may lie from that of another; None as long as no such row has several."""
        squares, freedom = 0.0, 0
        for key, results in self._results.items():
            values = _values(results, name) if self._kin[key] == kin else []
            if len(values) > 1:
                unit = fmean(values) if name in _PROPORTIONAL else 1.0
                squares += (len(values) - 1) * (stdev(values) / unit) ** 2
                freedom += len(values) - 1
        return Spread(math.sqrt(squares / freedom), freedom) if freedom else None

    def all(self) -> list[Result]:
        """Every declared result."""
        return [result for results in self._results.values() for result in results]


def _values(results: list[Result], name: str) -> list[float]:
    return [value for result in results if (value := result.figures.get(name)) is not None]


def _kin_of(row: Row, scale_name: str) -> Kin | None:
    """None for what has no seed: codecs, and densities, which bring their own deviations."""
    if not row.has_scale:
        return None
    experiment = row.experiment(SCALES[scale_name], seed=0)
    model = experiment.model  # type: ignore[attr-defined]
    return scale_name, experiment.data, model.likelihood, model.quantizer  # type: ignore[attr-defined]


def _row_key(row: Row, scale: Scale) -> str:
    return _without_seed(content_of(row.experiment(scale, seed=0)))


def _without_seed(content: Mapping[str, Any]) -> str:
    training = content.get("training")
    if training:
        content = {**content, "training": {name: value for name, value in training.items() if name != "seed"}}
    return json.dumps(content, sort_keys=True)


def _seed(content: Mapping[str, Any]) -> int:
    return content.get("training", {}).get("seed", 0)
