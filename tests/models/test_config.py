"""DQAEConfig: what is out of range is refused, and unknown keys list the valid ones."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from depthq import DQAEConfig
from depthq.models import PRESETS


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_codebooks", 0, "num_codebooks must be at least 1; got 0"),
        ("codebook_size", 0, "codebook_size must be at least 1; got 0"),
        ("codebook_size", (8, -2), "codebook_size must be at least 1; got -2"),
        ("codebook_size", (), "codebook_size must have at least one entry"),
        ("codebook_dim", 0, "codebook_dim must be at least 1; got 0"),
        ("channels", (), "channels must have at least one entry"),
        ("channels", (8, 0), "channels must be at least 1; got 0"),
        ("num_residual_blocks", -1, "num_residual_blocks must be at least 0; got -1"),
        ("commitment_weight", -0.1, "commitment_weight must be finite and at least 0; got -0.1"),
        ("commitment_weight", float("nan"), "commitment_weight must be finite and at least 0; got nan"),
        ("commitment_weight", float("inf"), "commitment_weight must be finite and at least 0; got inf"),
        ("channels", 64, r"channels must be whole numbers, as in \(64, 128\); got 64"),
        ("codebook_size", None, "codebook_size must be an integer; got None"),
        ("codebook_size", "128", "codebook_size must be an integer; got '128'"),
        ("decay", "fast", "decay must be a number; got 'fast'"),
        ("decay", 1.0, r"decay must lie in \[0, 1\); got 1.0"),
        ("rare_code_threshold", -0.5, r"rare_code_threshold must lie in \[0, 1\); got -0.5"),
        ("image_channels", 2, "image_channels must be one of 1, 3; got 2"),
        ("quantizer", "foo", "quantizer must be one of depthwise, shared, residual, scalar, binary, none.*; got 'foo'"),
        ("likelihood", "foo", "likelihood must be one of l2, categorical, logistic_mixture; got 'foo'"),
        ("codebook_update", "foo", "codebook_update must be one of ema, gradient; got 'foo'"),
    ],
)
def test_values_out_of_range_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(PRESETS["tiny"], **{field: value})


def test_unknown_keys_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"config keys must be among image_channels, likelihood.*; got num_books"):
        DQAEConfig.from_dict({"num_books": 3})


@pytest.mark.parametrize("preset", PRESETS)
def test_plain_dict_makes_the_same_configuration(preset):
    assert DQAEConfig.from_dict(asdict(PRESETS[preset])) == PRESETS[preset]


def test_lists_are_as_good_as_tuples():
    config = DQAEConfig(codebook_size=[4, 8], channels=[8, 16])  # type: ignore[arg-type]
    assert config == DQAEConfig(codebook_size=(4, 8), channels=(8, 16))
    assert hash(config) is not None


@pytest.mark.parametrize(("sizes", "multiple"), [(128, 4), ((128,), 4), ((8, 8), 8), ((8, 8, 8), 16)])
def test_image_multiple_is_the_stride_of_the_coarsest_level(sizes, multiple):
    assert DQAEConfig(codebook_size=sizes).image_multiple == multiple


def test_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        PRESETS["tiny"].num_codebooks = 3  # type: ignore[misc]


def test_numbers_of_numpy_are_kept_as_pythons_own():
    config = DQAEConfig(codebook_size=np.int64(8), num_codebooks=np.int64(3), decay=np.float32(0.5))  # type: ignore[arg-type]
    assert (config.codebook_size, config.num_codebooks, config.decay) == (8, 3, 0.5)
    assert [type(each) for each in (config.codebook_size, config.num_codebooks, config.decay)] == [int, int, float]
    config = DQAEConfig(codebook_size=np.array(8), image_channels=np.int64(3), rotation_trick=np.bool_(True))  # type: ignore[arg-type]
    assert json.loads(json.dumps(asdict(config))) == {
        **asdict(DQAEConfig()),
        "channels": [64, 128],
        "codebook_size": 8,
        "rotation_trick": True,
    }
