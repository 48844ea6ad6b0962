"""A module in a folder: what is damaged is told, and no file makes us build more than it holds."""

import json
import stat

import pytest
import torch

import depthq
from depthq.priors import CodePrior, UniformPrior
from depthq.priors.transformer import TransformerPrior


def model():
    torch.manual_seed(0)
    config = depthq.DQAEConfig(num_codebooks=2, codebook_size=8, channels=(4, 8))
    return depthq.DQAE(config)


SAVED = {
    "model": (model, depthq.DQAE.from_pretrained),
    "quantizer": (
        lambda: depthq.DepthwiseQuantizer(8, 2, 16, distance="cosine").freeze(),
        depthq.DepthwiseQuantizer.from_pretrained,
    ),
    "prior": (
        lambda: TransformerPrior(((8, 8),), ((4, 4),), width=16, num_layers=1, num_heads=2),
        CodePrior.from_pretrained,
    ),
    "uniform prior": (lambda: UniformPrior(((300, 300),), ((4, 4),)), CodePrior.from_pretrained),
}


@pytest.fixture(params=SAVED)
def saved(request, tmp_path):
    make, load = SAVED[request.param]
    module = make()
    module.save_pretrained(tmp_path)
    return module, load, tmp_path


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def loaded_or_told(load, folder):
    try:
        return load(folder)
    except ValueError as error:
        return str(error)


def test_it_goes_round(saved):
    module, load, folder = saved
    assert same(load(folder), module)
    modes = {stat.S_IMODE((folder / name).stat().st_mode) for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1


def test_a_flipped_bit_is_told_or_changes_nothing(saved):
    module, load, folder = saved
    generator = torch.Generator().manual_seed(0)
    for name in ("config.json", "model.safetensors"):
        whole = (folder / name).read_bytes()
        for place in torch.randint(8 * len(whole), (150,), generator=generator).tolist():
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            (folder / name).write_bytes(damaged)
            loaded = loaded_or_told(load, folder)
            assert isinstance(loaded, str) or same(loaded, module), (name, place)
            assert not isinstance(loaded, str) or (str(folder) in loaded and "copy" in loaded)
        (folder / name).write_bytes(whole)


def test_zeroed_bytes_are_told(tmp_path):
    model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-800:-400] = bytes(400)
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="the checksum differs"):
        depthq.DQAE.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_residual_blocks", 30_000),
        ("codebook_size", [1_000_000_000]),
        ("codebook_size", 1_000_000_000),
        ("codebook_dim", 10**12),
        ("channels", [2**40, 2**40]),
        ("num_codebooks", 10**9),
        ("channels", [8] * 100_000),
        ("horizon", 10**9),
        ("num_residual_blocks", 1e9),
        ("codebook_dim", 1e12),
    ],
)
def test_a_config_cannot_ask_for_more_than_the_weights_hold(tmp_path, field, value):
    model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(ValueError, match=r"must fit the weights|must be whole and fit|config fields"):
        depthq.DQAE.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 50_000 + "]" * 50_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "\udcff", "[1]", ""]
)
def test_a_config_that_is_none_is_told(tmp_path, text):
    model().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"config.json must be a JSON object of config fields; got"):
        depthq.DQAE.from_pretrained(tmp_path)


def test_weights_from_before_there_was_a_checksum_load(tmp_path):
    from safetensors.torch import load_file, save_file

    module = model()
    module.save_pretrained(tmp_path)
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
    assert same(depthq.DQAE.from_pretrained(tmp_path), module)


def test_options_that_nothing_takes_are_refused(tmp_path):
    model().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="hub_options must be left out for a folder; got nonsense"):
        depthq.DQAE.from_pretrained(tmp_path, nonsense=1)
    with pytest.raises(TypeError, match=r"must be those of huggingface_hub.snapshot_download; got nonsense"):
        depthq.DQAE.from_pretrained("owner/name", nonsense=1)


def test_a_large_setting_of_a_small_module_is_no_size(tmp_path):
    quantizer = depthq.BinaryQuantizer(3, 1, 8, inverse_temperature=100)
    quantizer.save_pretrained(tmp_path)
    assert depthq.BinaryQuantizer.from_pretrained(tmp_path).inverse_temperature == 100


def test_a_model_that_is_replaced_while_it_is_read_is_not_damaged(tmp_path, monkeypatch):
    module, later = model(), model()
    torch.nn.init.ones_(later.head.bias)
    module.save_pretrained(tmp_path)
    replaced = []

    def check_size(*arguments):
        later.save_pretrained(tmp_path)
        replaced.append(arguments)

    monkeypatch.setattr("depthq.saved._check_size", check_size)
    assert same(depthq.DQAE.from_pretrained(tmp_path), module)
    assert len(replaced) == 1
