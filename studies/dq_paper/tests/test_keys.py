"""A result's key: what changes it, and what must not, so that committed results stay found."""

import json
from dataclasses import asdict, field, fields, make_dataclass, replace
from pathlib import Path

import pytest

from depthq.models import DQAEConfig
from depthq.training import TrainingConfig
from studies.dq_paper import ITEMS, SCALES, ResultsStore, Row, Scale, find_item, keys
from studies.dq_paper.keys import BASELINE, CONFIGS, KINDS, content_of, defaults_of, key_of
from studies.dq_paper.row_results import DeclaredResults

COMMITTED = Path(__file__).parents[1] / "results"
CPU = SCALES["cpu"]


def find_row(item: str, name: str) -> Row:
    (row,) = [row for row in find_item(item).rows if row.name == name]
    return row


ROW = find_row("table3", "M5-K128-l2-depthwise")


def key(row: Row, scale: Scale = CPU, seed: int = 0) -> str:
    return key_of(content_of(row.experiment(scale, seed)))


def committed_keys() -> set[str]:
    return {file.stem.rpartition("-")[2] for file in COMMITTED.glob("*.json")}


def declared_keys() -> set[str]:
    """Of every row at every scale, with as many seeds as rows have at most."""
    rows = [row for item in map(find_item, ITEMS) for row in item.rows]
    return {key(row, scale, seed) for row in rows for scale in SCALES.values() for seed in range(row.seeds)}


def changed_config(monkeypatch, name: str, new_fields: list[tuple]) -> type:
    """A configuration as it would be with these fields, new or of another default, in its place everywhere."""
    base = CONFIGS[name]
    config = make_dataclass(base.__name__, new_fields, bases=(base,), frozen=True, kw_only=True)
    monkeypatch.setitem(keys.CONFIGS, name, config)
    for scale_name, scale in SCALES.items():
        values = {field.name: getattr(getattr(scale, name), field.name) for field in fields(base)}
        monkeypatch.setitem(SCALES, scale_name, replace(scale, **{name: config(**values)}))
    return config


def test_key_tells_experiments_apart():
    experiment = ROW.experiment(CPU, seed=0)
    others = [
        ROW.experiment(CPU, seed=1),
        ROW.experiment(SCALES["gpu"], seed=0),
        replace(experiment, data="mnist"),
        replace(experiment, model=replace(experiment.model, codebook_size=512)),
        replace(experiment, model=replace(experiment.model, codebook_size=(128,))),
        replace(experiment, training=replace(experiment.training, steps=999)),
    ]
    found = [key_of(content_of(other)) for other in [experiment, *others]]
    assert len(set(found)) == len(found)
    assert key(ROW) == found[0]


# Committed results are found by these keys. If this test fails, a change of a scale, of a row or of how keys are made
# has orphaned them: undo it, or train those rows again.
@pytest.mark.parametrize(
    ("item", "row", "pinned"),
    [
        ("table3", "M5-K128-l2-depthwise", "e95bdfe1d570"),
        ("table3", "M5-K128-l2-shared", "7539a704fb6d"),
        ("table4", "K256x128-mix-depthwise", "f1b9cc334e36"),
        ("rate_distortion", "jpeg-files-q40", "26740441987e"),
        ("table1", "imagenet32-sample-depthwise", "901373d85b40"),
        ("table2", "lite0-320-K32-row", "31f5aba496e7"),
    ],
)
def test_key_is_the_one_of_committed_results(item, row, pinned):
    assert key(find_row(item, row)) == pinned


def test_every_committed_result_is_of_a_declared_row():
    assert len(committed_keys()) == 259
    assert committed_keys() <= declared_keys()


@pytest.mark.parametrize(("config", "default"), [("model", 0.0), ("training", (1, 2)), ("model", None)])
def test_new_field_with_a_default_leaves_every_committed_result_found(config, default, monkeypatch):
    changed_config(monkeypatch, config, [("novelty", object, default)])
    experiment = ROW.experiment(SCALES["cpu"], seed=0)
    assert getattr(experiment, config).novelty == default
    assert "novelty" in content_of(experiment)[config]
    assert committed_keys() <= declared_keys()
    declared = DeclaredResults(ResultsStore(COMMITTED))  # warns of what no row declares
    assert len(declared.all()) == 259
    assert len(declared.at("cpu").of(ROW)) == 2


def test_new_field_with_a_default_from_a_factory_changes_no_key(monkeypatch):
    before = key(ROW)
    changed_config(monkeypatch, "model", [("novelty", list, field(default_factory=lambda: [1, 2]))])
    assert key(ROW, SCALES["cpu"]) == before


def test_new_field_of_another_value_gives_another_key(monkeypatch):
    before = key(ROW)
    changed_config(monkeypatch, "model", [("novelty", float, 0.0)])
    experiment = ROW.experiment(SCALES["cpu"], seed=0)
    with_novelty = replace(experiment, model=replace(experiment.model, novelty=0.5))
    assert key_of(content_of(experiment)) == before
    assert key_of(content_of(with_novelty)) != before


def test_new_field_goes_by_the_baseline_once_it_stands_there(monkeypatch):
    """What was run without it, and what says the value in the baseline, are the same; today's default is another."""
    before = key(ROW)
    changed_config(monkeypatch, "model", [("novelty", float, 0.5)])
    monkeypatch.setitem(BASELINE, "DQAEConfig", BASELINE["DQAEConfig"] | {"novelty": 0.0})
    experiment = ROW.experiment(SCALES["cpu"], seed=0)
    without = replace(experiment, model=replace(experiment.model, novelty=0.0))
    assert key_of(content_of(without)) == before
    assert key_of(content_of(experiment)) != before


def test_changed_default_changes_no_key_of_what_says_its_value(monkeypatch):
    before, stored = key(ROW), content_of(ROW.experiment(CPU, seed=0))
    config = changed_config(monkeypatch, "model", [("decay", float, 0.95)])
    assert stored["model"]["decay"] == BASELINE["DQAEConfig"]["decay"] == 0.9
    assert key_of(stored) == before
    new_default = replace(SCALES["cpu"], model=config(channels=CPU.model.channels))
    assert new_default.model.decay == 0.95
    assert key(ROW, new_default) != before  # and does not pass for what was run with the old one
    assert committed_keys() <= declared_keys()


@pytest.mark.parametrize("cls", [*CONFIGS.values(), *KINDS.values()], ids=lambda cls: cls.__name__)
def test_every_field_with_a_default_stands_in_the_baseline(cls):
    missing = defaults_of(cls).keys() - BASELINE[cls.__name__].keys()
    assert not missing, (
        f"add to {cls.__name__} in studies/dq_paper/baseline.yaml, and never change again: "
        + ", ".join(f"{name}: {json.dumps(defaults_of(cls)[name])}" for name in sorted(missing))
        + "; or another value, if that is what all results so far were made with"
    )


@pytest.mark.parametrize("cls", [DQAEConfig, TrainingConfig])
def test_baseline_makes_a_configuration(cls):
    """Its values are of the kind that JSON has of the fields, and so equal them where they are meant."""
    assert json.loads(json.dumps(asdict(cls(**BASELINE[cls.__name__])))) == BASELINE[cls.__name__]


def test_experiment_of_a_kind_of_ones_own_has_a_key():
    assert key_of({"kind": "mine", "data": "bundled"}) != key_of({"kind": "mine", "data": "mnist"})
