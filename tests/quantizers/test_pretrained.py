"""A quantizer on its own: saved, loaded, exported, and told apart from a collapsed one while it is fresh."""

import copy
import json
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

import depthq
from depthq.quantizers import Quantizer

QUANTIZERS = {
    "depthwise": lambda: depthq.DepthwiseQuantizer(8, 2, 16, decay=0.9),
    "uneven": lambda: depthq.DepthwiseQuantizer(10, num_codebooks=3, codebook_size=[4, 5, 6]),
    "shared": lambda: depthq.SharedQuantizer(8, 2, 16, combine="sum"),
    "residual": lambda: depthq.ResidualQuantizer(dim=8, num_codebooks=2, codebook_size=16, axis=-1),
    "scalar": lambda: depthq.ScalarQuantizer(8, 2, 81),
    "binary": lambda: depthq.BinaryQuantizer(8, 2, 16, on_sphere=False),
}


@pytest.fixture(params=QUANTIZERS)
def trained(request):
    torch.manual_seed(0)
    quantizer = QUANTIZERS[request.param]()
    for _ in range(3):
        quantizer(latents(quantizer, 300))
    return quantizer.eval()


def latents(quantizer, positions=5):
    return torch.randn(2, quantizer.dim, positions).movedim(1, quantizer.axis)


def test_a_saved_quantizer_comes_back(trained, tmp_path):
    trained.save_pretrained(tmp_path)
    again = type(trained).from_pretrained(tmp_path)
    assert type(again) is type(Quantizer.from_pretrained(tmp_path)) is type(trained)
    assert not again.training
    x = latents(trained)
    assert torch.equal(again(x).quantized, trained(x).quantized)
    assert str(again.health()) == str(trained.health())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_can_be_saved_too(trained, copied, tmp_path):
    copied(trained).save_pretrained(tmp_path)
    x = latents(trained)
    assert torch.equal(Quantizer.from_pretrained(tmp_path)(x).codes, trained(x).codes)


@pytest.mark.parametrize(
    "arguments",
    [
        {"codebook_size": np.array([4, 8])},
        {"codebook_size": torch.tensor([4, 8])},
        {"codebook_size": range(4, 6)},
        {"codebook_size": [np.int64(4), torch.tensor(8)]},
        {"decay": np.float32(0.9)},
        {"rotation_trick": np.bool_(True)},
        {"commitment_weight": torch.tensor(0.5)},
        {"commitment_weight": Fraction(1, 2)},
        {"inverse_temperature": 1e5},
        {"inverse_temperature": 100_000},
    ],
    ids=str,
)
def test_arguments_of_any_kind_survive_saving(arguments, tmp_path):
    quantizer = depthq.DepthwiseQuantizer(8, 2, **{"codebook_size": 4} | arguments)
    quantizer.save_pretrained(tmp_path)
    again = depthq.DepthwiseQuantizer.from_pretrained(tmp_path)
    assert again.to_config() == quantizer.to_config()
    assert again.codebook_sizes == quantizer.codebook_sizes
    assert again.commitment_weight == quantizer.commitment_weight


def test_what_becomes_of_an_argument_later_is_not_saved():
    sizes = [4, 8]
    quantizer = depthq.DepthwiseQuantizer(8, 2, sizes)
    sizes.append(16)
    assert quantizer.to_config()["arguments"]["codebook_size"] == [4, 8]


def test_another_class_is_named(tmp_path):
    depthq.SharedQuantizer(8, 2, 16).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must hold a DepthwiseQuantizer; got a SharedQuantizer; load it with Shared"):
        depthq.DepthwiseQuantizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("damage", ["no config", "half config", "another size", "unknown class", "half weights"])
def test_a_damaged_folder_is_named(damage, tmp_path):
    depthq.SharedQuantizer(8, 2, 16).save_pretrained(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    made_of = json.loads(config.read_text())
    if damage == "no config":
        config.unlink()
    elif damage == "half config":
        config.write_text(config.read_text()[:20])
    elif damage == "another size":
        config.write_text(json.dumps(made_of | {"arguments": made_of["arguments"] | {"codebook_size": 17}}))
    elif damage == "unknown class":
        config.write_text(json.dumps(made_of | {"class": "Module"}))
    else:
        weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{tmp_path} must hold|must be whole and fit|must be a JSON object"):
        Quantizer.from_pretrained(tmp_path)


def test_an_exported_quantizer_gives_what_it_gave(trained):
    x = latents(trained)
    out = torch.export.export(trained, (x,)).module()(x)
    assert isinstance(out, depthq.QuantizerOutput)
    assert out.codebook_sizes == trained.codebook_sizes
    assert torch.equal(out.codes, trained(x).codes)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_fresh_quantizer_is_not_trained_yet_and_not_collapsed(name):
    quantizer = QUANTIZERS[name]()
    health = quantizer.health()
    assert not health.is_trained.any()
    assert not health.collapsed.any()
    assert str(health).count("not trained yet") == quantizer.num_codebooks
    quantizer(latents(quantizer, 300))
    assert quantizer.health().is_trained.all()
    assert "not trained yet" not in str(quantizer.health())


def test_one_code_for_everything_is_a_collapse():
    quantizer = depthq.ScalarQuantizer(8, 2, 81)
    quantizer(torch.zeros(2, 8, 300))
    assert quantizer.health().collapsed.all()
    assert "collapsed" in str(quantizer.health())


class Doubled(depthq.DepthwiseQuantizer):
    def __init__(self, half_dim: int, **others):
        super().__init__(2 * half_dim, 2, 8, **others)


class Fixed(depthq.DepthwiseQuantizer):
    def __init__(self):
        super().__init__(8, 2, 4)


@pytest.mark.parametrize("quantizer", [lambda: Doubled(4, axis=-1), Fixed], ids=["doubled", "fixed"])
def test_a_quantizer_of_ones_own_comes_back(quantizer, tmp_path):
    made = quantizer().eval()
    made.save_pretrained(tmp_path)
    again = type(made).from_pretrained(tmp_path)
    assert type(again) is type(made)
    assert again.axis == made.axis
    assert torch.equal(again.codebooks, made.codebooks)


def test_arguments_without_a_name_are_refused_when_saved(tmp_path):
    class Unnamed(depthq.DepthwiseQuantizer):
        def __init__(self, *sizes: int):
            super().__init__(*sizes)

    with pytest.raises(ValueError, match=r"Unnamed.__init__ must name its arguments.*got \*sizes"):
        Unnamed(8, 2, 4).save_pretrained(tmp_path)


def test_a_class_loads_itself_though_another_took_its_name(tmp_path):
    depthq.ScalarQuantizer(4, 2, 9).save_pretrained(tmp_path)
    taken = type("ScalarQuantizer", (depthq.ScalarQuantizer,), {})
    assert type(depthq.ScalarQuantizer.from_pretrained(tmp_path)) is depthq.ScalarQuantizer
    taken._classes["ScalarQuantizer"] = depthq.ScalarQuantizer
