"""The rows that can be run: one YAML file per item in items/, read into plain data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from depthq.models import DQAEConfig
from depthq.training import TrainingConfig
from studies.dq_paper.codecs import Codec
from studies.dq_paper.density_study import DensityStudy
from studies.dq_paper.experiment import Experiment
from studies.dq_paper.scales import Scale
from studies.dq_paper.trainings import Progressive, Training

ITEMS = (
    "table1",
    "table2",
    "table3",
    "table4",
    "decoupling",
    "convergence",
    "mnist",
    "larger_images",
    "progressive",
    "equal_bits",
    "which_quantizer",
    "length",
    "capacity",
    "rate_distortion",
    "figure1",
    "figure3",
    "figure4",
    "figure5",
)
"""In the order of the page."""
_MODEL_FIELDS = {field.name for field in fields(DQAEConfig)}
_TRAINING_FIELDS = {field.name for field in fields(TrainingConfig)} - {"seed", "steps"}  # which a row has otherwise
_OWN = ("name", "kind", "quantizer", "likelihood", "paper", "seeds")
"""What is no option of a row."""
_MULTIPLES = ("times_steps", "times_codebook_dim")
"""Options that multiply what the scale has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One declared row of an item; equal only to itself."""

    name: str
    """Words joined by dashes, such as M5-K128-l2-depthwise."""
    kind: str
    """What sort of experiment, see the modules of `studies.dq_paper`."""
    quantizer: str | None = None
    """What it is a row of; None: the scale's, or none at all."""
    likelihood: str | None = None
    """Of images given their codes; None: the scale's, or none at all."""
    options: dict[str, Any]
    """What else sets the experiment apart: its own fields, those of `DQAEConfig` and `TrainingConfig`, multiples of
    what the scale has."""
    paper: dict[str, float]
    """The paper's metrics, by the names that ours have; units in the names."""
    seeds: int
    """How many seeds it is run with, 0, 1, ... unless others are asked for."""

    @property
    def has_scale(self) -> bool:
        """Whether it trains a network, which scale and seed then decide on; codecs and features are as they are."""
        return self.kind in ("training", "progressive")

    @property
    def settings(self) -> dict[str, Any]:
        """All that fixes what is run, by name; multiples are 1 where the row has none."""
        own = {"kind": self.kind, "quantizer": self.quantizer, "likelihood": self.likelihood}
        return own | dict.fromkeys(_MULTIPLES, 1) | self.options

    def has(self, **settings: Any) -> bool:
        """Whether these are among its settings."""
        own = self.settings
        return all(own.get(name) == value for name, value in settings.items())

    def is_like(self, other: "Row", but_for: str) -> bool:
        """Whether both have the same settings, whatever that one is."""
        return self.settings | {but_for: None} == other.settings | {but_for: None}

    def name_without(self, word: str) -> str:
        """The name's other words."""
        return "-".join(other for other in self.name.split("-") if other != word)

    def experiment(self, scale: Scale, seed: int) -> Experiment:
        """What is run for this row at a scale, with a seed."""
        if self.kind == "codec":
            return Codec(**self.options)
        if self.kind == "density":
            return DensityStudy(**self.options)
        own = {name: value for name, value in self.options.items() if name not in _MODEL_FIELDS}
        model = self._model(scale, own.pop("times_codebook_dim", 1))
        steps = round(own.pop("times_steps", 1) * scale.training.steps)
        changed = {name: own.pop(name) for name in _TRAINING_FIELDS & own.keys()}
        training = replace(scale.training, seed=seed, steps=steps, **changed)
        if self.kind == "progressive":
            own["image_sizes"] = tuple(own["image_sizes"])
            return Progressive(model=model, training=training, **own)
        return Training(model=model, training=training, **own)

    def _model(self, scale: Scale, times_codebook_dim: int) -> DQAEConfig:
        changed = {name: value for name, value in self.options.items() if name in _MODEL_FIELDS}
        named = {"quantizer": self.quantizer, "likelihood": self.likelihood}
        changed |= {name: value for name, value in named.items() if value is not None}
        model = replace(scale.model, **changed)
        if model.quantizer == "shared" and model.num_codebooks == 1:
            # With one codebook there is nothing to share: the same network, trained once for both.
            model = replace(model, quantizer="depthwise")
        return replace(model, codebook_dim=times_codebook_dim * model.codebook_dim)

    def matches(self, pattern: str) -> bool:
        """Whether the pattern is the name, its first words, or a wildcard (*) that fits it."""
        return self.name == pattern or self.name.startswith(pattern + "-") or fnmatchcase(self.name, pattern)


@dataclass(frozen=True, kw_only=True)
class Item:
    """A table, a figure or a claim of the paper, or a comparison that goes past it."""

    name: str
    title: str
    protocol: str
    """What is done, and how it departs from the paper."""
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = ("mse_normalized", "nll_nats_per_dim")
    """What is compared between its rows, by the names in results."""
    not_run: str = ""
    """Why rows without a result have none, in a sentence; "" where none is missing."""
    scale: str | None = None
    """The one scale at which it is shown, and which shows nothing else; None: all others."""


def choose_rows(items: Sequence[Item], patterns: Sequence[str]) -> list[tuple[Item, Row]]:
    """The rows of some items that any pattern matches, all without one.

    Raises:
        ValueError: If a pattern matches none of them.
    """
    rows = [(item, row) for item in items for row in item.rows]
    for pattern in patterns:
        if not any(row.matches(pattern) for _, row in rows):
            names = ", ".join(row.name for _, row in rows)
            raise ValueError(f"--rows must match one of {names}; got {pattern!r}")
    return [(item, row) for item, row in rows if not patterns or any(map(row.matches, patterns))]


def find_item(name: str) -> Item:
    """An item by its name; raises ValueError with the list if there is none."""
    if name not in ITEMS:
        raise ValueError(f"item must be one of {', '.join(ITEMS)}; got {name!r}")
    return _load(name)


def row_with(item_name: str, **settings: Any) -> Row:
    """The one row of an item that has these among its settings."""
    (row,) = [row for row in find_item(item_name).rows if row.has(**settings)]
    return row


@cache
def _load(name: str) -> Item:
    text = (files("studies.dq_paper") / "items" / f"{name}.yaml").read_text()
    declared = yaml.safe_load(text)
    defaults = declared.pop("defaults", {})
    rows = tuple(_row(row, defaults) for row in _expanded(declared.pop("rows")))
    if "metrics" in declared:
        declared["metrics"] = tuple(declared["metrics"])
    return Item(name=name, rows=rows, **declared)


def _expanded(rows: Sequence[dict]) -> Iterator[dict]:
    """Rows of a file, with those that stand in for rows of another item filled in."""
    for row in rows:
        if "same_as" not in row:
            yield row
            continue
        item, _, pattern = row["same_as"].partition("/")
        others = [other for other in find_item(item).rows if fnmatchcase(other.name, pattern)]
        assert others, row
        own = {key: value for key, value in row.items() if key != "same_as"}
        for other in others:
            of_other = {name: getattr(other, name) for name in _OWN}
            yield of_other | other.options | own


def _row(declared: dict, defaults: dict) -> Row:
    options = {"paper": {}, "seeds": 1} | defaults | declared
    own = {name: options.pop(name) for name in _OWN if name in options}
    return Row(**own, options=options)
