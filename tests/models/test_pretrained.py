"""save_pretrained and from_pretrained: bit for bit, without pickle, and clear about damage."""

import json
import pickle
from dataclasses import replace
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from depthq import DQAE
from depthq.models import PRESETS

CONFIGS = {
    "plain": PRESETS["tiny"],
    "two levels": replace(PRESETS["tiny"], codebook_size=(8, 16)),
    "gray": replace(PRESETS["tiny"], image_channels=1, likelihood="categorical"),
    "gradient": replace(PRESETS["tiny"], codebook_update="gradient"),
    "residual": replace(PRESETS["tiny"], quantizer="residual"),
    "scalar": replace(PRESETS["tiny"], quantizer="scalar"),
    "binary": replace(PRESETS["tiny"], quantizer="binary"),
    "none": replace(PRESETS["tiny"], quantizer="none"),
}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    DQAE(PRESETS["tiny"]).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("name", CONFIGS)
def test_model_comes_back_bit_for_bit(tmp_path, name):
    config = CONFIGS[name]
    model = DQAE(config)
    images = torch.randint(0, 256, (4, config.image_channels, 16, 16), dtype=torch.uint8)
    model(images)
    model.save_pretrained(tmp_path)
    again = DQAE.from_pretrained(tmp_path)
    assert again.config == config
    assert not again.training
    assert again.fingerprint() == model.fingerprint()
    assert torch.equal(again(images).parameters, model.eval()(images).parameters)


def test_folder_holds_no_pickle(saved):
    files = {path.name for path in saved.iterdir()}
    assert {"config.json", "model.safetensors"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl", ".ckpt"))]
    assert json.loads((saved / "config.json").read_text())["num_codebooks"] == 2


def test_weights_that_are_a_pickle_run_no_code(saved):
    traces = saved / "traces"

    class Bomb:
        def __reduce__(self):
            return open, (str(traces), "w")

    (saved / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"must be whole and fit config\.json"):
        DQAE.from_pretrained(saved)
    assert not traces.exists()


@pytest.mark.parametrize("length", [0, 4, 200, -1])
def test_cut_off_weights_are_named_with_the_remedy(saved, length):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"model.safetensors must be whole and fit config.json; got: .*copy it again"):
        DQAE.from_pretrained(saved)


def rewrite(saved, **changes):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_books": 3}, r"config keys must be among .*num_codebooks.*; got num_books"),
        ({"num_codebooks": 5}, "must be whole and fit config.json"),
        ({"num_codebooks": 0}, "num_codebooks must be at least 1; got 0"),
        ({"num_codebooks": "two"}, "config.json must be a JSON object of config fields|num_codebooks must"),
        ({"codebook_size": None}, "config.json must be a JSON object of config fields|codebook_size must"),
        ({"channels": 8}, "config.json must be a JSON object of config fields|channels must"),
        ({"quantizer": "foo"}, "quantizer must be one of"),
    ],
)
def test_config_that_does_not_fit_is_refused(saved, changes, message):
    rewrite(saved, **changes)
    with pytest.raises(ValueError, match=message):
        DQAE.from_pretrained(saved)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "3", "\udcff"])
def test_damaged_config_is_named(saved, content):
    (saved / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"config\.json must be a JSON object|config keys"):
        DQAE.from_pretrained(saved)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_file_is_named(saved, missing):
    (saved / missing).unlink()
    with pytest.raises(ValueError, match=rf"must hold {missing}; got none; is it a save_pretrained folder\?"):
        DQAE.from_pretrained(saved)


def test_name_that_is_nowhere_is_refused(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ValueError,
        match=r"gone/away must be a shipped model .*, a save_pretrained folder or a repository on the hub; got",
    ):
        DQAE.from_pretrained("gone/away")
    with pytest.raises(ValueError, match=r"too/many/parts must be a shipped model .* or a repository"):
        DQAE.from_pretrained("too/many/parts")


def test_saving_again_replaces_all_but_the_readme(saved):
    (saved / "README.md").write_text("mine")
    torch.manual_seed(1)
    model = DQAE(CONFIGS["two levels"])
    model.save_pretrained(saved)
    assert (saved / "README.md").read_text() == "mine"
    assert DQAE.from_pretrained(saved).fingerprint() == model.fingerprint()


def test_pushed_to_the_hub_is_what_is_saved(saved, monkeypatch):
    """The repository's name is the hub's answer: it adds the owner where that was left out."""
    pushed = {}

    class Hub:
        def __init__(self, token):
            pushed["token"] = token

        def create_repo(self, repo_id, **options):
            return SimpleNamespace(repo_id=f"someone/{repo_id}")

        def upload_folder(self, *, repo_id, folder_path, **options):
            pushed[repo_id] = DQAE.from_pretrained(folder_path).fingerprint()
            return "https://hub/commit"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    model = DQAE.from_pretrained(saved)
    assert model.push_to_hub("photos", token="secret") == "https://hub/commit"
    assert pushed == {"token": "secret", "someone/photos": model.fingerprint()}
