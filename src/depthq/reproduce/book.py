"""All results, looked up by the rows that declare them: the mean and spread over seeds of any figure."""

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from depthq.reproduce.declared import ITEMS, Row, find_item
from depthq.reproduce.experiment import content_of
from depthq.reproduce.results import Result, ResultsStore
from depthq.reproduce.scales import SCALES, Scale


@dataclass(frozen=True)
class Measured:
    """A figure over the seeds of a row."""

    mean: float
    deviation: float | None
    """Standard deviation over seeds (n - 1); None for one seed."""
    seeds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Measured":
        values = list(values)
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Spread:
    """How much a figure varies from seed to seed, over several rows together."""

    relative: float
    """Standard deviation relative to the mean."""
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
        self._leave_out_undeclared()

    def _leave_out_undeclared(self) -> None:
        rows = [row for name in ITEMS for row in find_item(name).rows]
        declared = {_row_key(row, scale) for row in rows for scale in SCALES.values()}
        for key in self._results.keys() - declared:
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
        values = [result.figures.get(name) for result in self.of(row, scale)]
        values = [value for value in values if value is not None]
        return Measured.of(values) if values else None

    def spread(self, name: str, scale: Scale, likelihood: str) -> Spread | None:
        """How far a figure of one seed may lie from that of another, by all rows of a scale with several seeds.

        Args:
            name: The figure.
            scale: Whose rows.
            likelihood: Only rows that are trained with it: the noise of one loss says nothing of another's.

        Returns:
            None as long as no such row has several seeds.
        """
        measured = [
            Measured.of(result.figures[name] for result in results)
            for results in self._results.values()
            if len(results) > 1
            and all(result.figures.get(name) for result in results)
            and results[0].experiment["model"]["likelihood"] == likelihood
            and results[0].experiment["training"]["steps"] == scale.training.steps
        ]
        squares = [(one.seeds - 1) * (one.deviation / one.mean) ** 2 for one in measured if one.deviation is not None]
        freedom = sum(one.seeds - 1 for one in measured)
        return Spread(math.sqrt(sum(squares) / freedom), freedom) if freedom else None

    def all(self) -> list[Result]:
        """Every declared result."""
        return [result for results in self._results.values() for result in results]


def _row_key(row: Row, scale: Scale) -> str:
    return _without_seed(content_of(row.experiment(scale, seed=0)))


def _without_seed(content: Mapping[str, Any]) -> str:
    training = content.get("training")
    if training:
        content = {**content, "training": {name: value for name, value in training.items() if name != "seed"}}
    return json.dumps(content, sort_keys=True)


def _seed(content: Mapping[str, Any]) -> int:
    return content.get("training", {}).get("seed", 0)
