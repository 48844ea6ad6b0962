"""What a run may be told, and how it answers to what it may not."""

from dataclasses import replace

import numpy as np
import pytest

from depthq.models import PRESETS
from depthq.training import TRAINING_PRESETS, DataConfig, Hardware, RunConfig

TINY, TRAINING = PRESETS["tiny"], TRAINING_PRESETS["tiny"]


@pytest.mark.parametrize("name", ["level_dropout", "codebook_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_dropout_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\); got {value}"):
        replace(TRAINING, **{name: value})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"level_dropout": None}, "level_dropout must be a number; got None"),
        ({"codebook_dropout": "0.5"}, "codebook_dropout must be a number; got '0.5'"),
        ({"steps": 2.5}, "steps must be an integer; got 2.5"),
        ({"learning_rate": "fast"}, "learning_rate must be a number; got 'fast'"),
        ({"num_workers": True}, "num_workers must be an integer; got True"),
        ({"precision": "fp16"}, "precision must be one of auto, 32-true, bf16-mixed, 16-mixed; got 'fp16'"),
        ({"seed": 2**32}, r"seed must be below 2\*\*32; got 4294967296"),
    ],
)
def test_options_of_another_kind_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        replace(TRAINING, **option)


def test_numbers_of_numpy_are_kept_as_pythons_own():
    training = replace(TRAINING, steps=np.int64(2), learning_rate=np.float32(0.5), level_dropout=np.float64(0.25))
    kept = (training.steps, training.learning_rate, training.level_dropout)
    assert kept == (2, 0.5, 0.25)
    assert [type(each) for each in kept] == [int, float, float]
    assert type(DataConfig(data="bundled", image_size=np.int64(32)).image_size) is int  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ({}, {"level_dropout": 0.1}, "level_dropout must be 0 for a model of one level; got 0.1; give codebook_size"),
        ({"num_codebooks": 1}, {"codebook_dropout": 0.1}, "codebook_dropout must be 0 .* fewer than two codebooks"),
        ({"quantizer": "none"}, {"codebook_dropout": 0.1}, "codebook_dropout must be 0 .* fewer than two codebooks"),
    ],
)
def test_dropout_of_what_a_model_does_not_have_is_refused(model, training, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(data=DataConfig(data="bundled"), model=replace(TINY, **model), training=replace(TRAINING, **training))


def test_devices_and_nodes_may_be_numbers():
    for devices, kept in ((2, "2"), ([0, 2], "0,2"), ((0, 2), "0,2"), ("[0, 2]", "0,2"), ("0, 2", "0,2")):
        assert Hardware(devices=devices).devices == kept  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nodes must be an integer; got None"):
        Hardware(nodes=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"devices must be auto, a number.*got two"):
        Hardware(devices="two")
