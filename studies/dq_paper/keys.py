"""What a result is found by: a hash of all that sets its experiment apart from a frozen baseline."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from depthq.models import DQAEConfig
from depthq.training import TrainingConfig
from studies.dq_paper.codecs import Codec
from studies.dq_paper.density_study import DensityStudy
from studies.dq_paper.experiment import Experiment
from studies.dq_paper.trainings import Progressive, Training

KINDS: dict[str, type] = {kind.kind: kind for kind in (Training, Progressive, Codec, DensityStudy)}
"""The class of each kind of experiment."""
CONFIGS: dict[str, type] = {"model": DQAEConfig, "training": TrainingConfig}
"""The class of each field of an experiment that has fields of its own."""
BASELINE: dict[str, dict[str, Any]] = yaml.safe_load((files("studies.dq_paper") / "baseline.yaml").read_text())
"""By class and field, the value at which a field is left out of keys."""


def content_of(experiment: Experiment) -> dict[str, Any]:
    """The experiment as JSON has it."""
    return _as_json({"kind": experiment.kind} | asdict(experiment))  # type: ignore[call-overload]


def key_of(content: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that change with anything in which an experiment differs from the baseline.

    A new field with a default changes no key of an experiment that has that default; nor does a default that changes,
    of an experiment that says its value.

    Args:
        content: As `content_of` gives it, or stored before some of the fields were there.
    """
    apart = _apart_from_baseline(content, KINDS.get(content.get("kind", "")))
    for name, config in CONFIGS.items():
        if name in apart:
            apart[name] = _apart_from_baseline(apart[name], config)
    return hashlib.sha256(json.dumps(apart, sort_keys=True).encode()).hexdigest()[:12]


@cache
def defaults_of(cls: type) -> Mapping[str, Any]:
    """The defaults of a dataclass's fields as JSON has them; fields without one are left out."""
    defaults = {}
    for field in fields(cls):
        if field.default is not MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not MISSING:
            defaults[field.name] = field.default_factory()
    return _as_json(defaults)


def _apart_from_baseline(content: Mapping[str, Any], cls: type | None) -> dict[str, Any]:
    """Fields that are not as in the baseline; of those that it does not have yet, not as their class has them."""
    usual = {} if cls is None else {**defaults_of(cls), **BASELINE.get(cls.__name__, {})}
    return {name: value for name, value in content.items() if name not in usual or value != usual[name]}


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
