"""A run that starts from another's model: its weights and codebooks are carried over."""

from dataclasses import replace

import pytest
import torch

from depthq import DQAE
from depthq.models import PRESETS
from depthq.runs import load_model, load_run_settings
from depthq.training import TRAINING_PRESETS, DataConfig, RunConfig, train
from depthq.training.module import DQAETraining

MODEL = replace(PRESETS["tiny"], codebook_size=(8, 16))


def config(data, model=MODEL, steps=6) -> RunConfig:
    training = replace(TRAINING_PRESETS["tiny"], steps=steps, validate_every=6, checkpoint_every=3)
    return RunConfig(data=DataConfig(data=str(data)), model=model, training=training)


@pytest.fixture
def first_state(monkeypatch):
    """What the model of each run holds ahead of its first step."""
    states = []
    original = DQAETraining.on_fit_start

    def on_fit_start(self):
        states.append({name: value.clone() for name, value in self.model.state_dict().items()})
        original(self)

    monkeypatch.setattr(DQAETraining, "on_fit_start", on_fit_start)
    return states


def same(state, other) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_weights_and_codebooks_are_carried_over(tmp_path, photos, trained_run, first_state):
    model = load_model(trained_run)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(config(photos, model.config), tmp_path / "run", start_from=model, progress=False)
    (state,) = first_state
    assert same(state, before)
    codebooks = [name for name in state if "quantizer" in name and name.endswith(("weight", "ema_sum", "ema_count"))]
    assert len(codebooks) >= 2 * 3
    assert same(model.state_dict(), before)  # which stays as it was
    assert not same(load_model(tmp_path / "run").state_dict(), before)


def test_other_image_sizes_fit(tmp_path, write_photos, trained_run):
    model = load_model(trained_run)
    data = write_photos(tmp_path / "larger", size=32)
    assert train(config(data, model.config), tmp_path / "run", start_from=model, progress=False).images == 5


def test_resumed_run_goes_on_from_its_checkpoint_not_from_the_model(
    tmp_path, photos, trained_run, first_state, monkeypatch
):
    model = load_model(trained_run)
    train(config(photos, model.config), tmp_path / "whole", start_from=model, progress=False)
    original = DQAETraining.training_step

    def training_step(self, images, index):
        if self.global_step == 4:
            raise ValueError("stopped")
        return original(self, images, index)

    with monkeypatch.context() as stopped:
        stopped.setattr(DQAETraining, "training_step", training_step)
        with pytest.raises(ValueError, match="stopped"):
            train(config(photos, model.config), tmp_path / "run", start_from=model, progress=False)
    train(config(photos, model.config), tmp_path / "run", start_from=model, progress=False)
    assert load_model(tmp_path / "run").fingerprint() == load_model(tmp_path / "whole").fingerprint()


def test_what_has_another_shape_is_drawn_anew_and_told(tmp_path, photos, capsys):
    """Another number of codebooks: the convolutions before and behind them are the model's."""
    model = DQAE(replace(MODEL, num_codebooks=3))
    train(config(photos, steps=1), tmp_path / "run", start_from=model)
    err = capsys.readouterr().err
    assert "starts from " in err
    assert "levels.0.projection" in err
    assert "levels.0.encoder" not in err


CHANGES = {
    "codebooks learned otherwise": {"codebook_update": "gradient"},
    "codebooks of another size": {"codebook_size": (8, 32)},
    "another number of codebooks": {"num_codebooks": 3},
    "another distance": {"distance": "cosine"},
    "another kind": {"quantizer": "residual", "num_codebooks": 1, "codebook_dim": 8},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_quantizer_is_taken_whole_or_not_at_all(tmp_path, photos, first_state, change, is_ours):
    """One that is not taken starts as any new one does: k-means++ in its first step, which moves no codeword to 0."""
    base = replace(MODEL, num_codebooks=1, codebook_dim=8) if change == "another kind" else MODEL
    models = [base, replace(base, **CHANGES[change])]
    theirs, ours = models if is_ours else reversed(models)
    train(config(photos, theirs, steps=2), tmp_path / "first", progress=False)
    model = load_model(tmp_path / "first")
    first_state.clear()
    train(config(photos, ours, steps=1), tmp_path / "run", start_from=model, progress=False)
    (state,), before = first_state, model.state_dict()
    encoder, codebook = "levels.1.encoder.0.0.weight", "levels.0.quantizer.state.weight"
    assert torch.equal(state[encoder], before[encoder])
    assert not state["levels.1.quantizer.state.num_updates"]
    if change == "codebooks of another size":  # of level 1 alone
        assert torch.equal(state[codebook], before[codebook])
    after = load_model(tmp_path / "run").levels[1].quantizer.state
    assert after.weight[after.is_code].any(1).all()


def test_settings_of_a_quantizer_may_differ(tmp_path, photos, first_state):
    model = DQAE(MODEL)
    ours = replace(MODEL, decay=0.5, commitment_weight=1.0, rare_code_threshold=0.0, rotation_trick=True)
    train(config(photos, ours, steps=1), tmp_path / "run", start_from=model, progress=False)
    assert same(first_state[0], model.state_dict())


@pytest.mark.parametrize(("theirs", "ours"), [((16,), (8, 16)), ((8, 16), (16,)), ((4, 8), (16, 4, 8))])
def test_levels_are_counted_from_the_finest(tmp_path, photos, first_state, theirs, ours):
    model = DQAE(replace(MODEL, codebook_size=theirs))
    train(
        config(photos, replace(MODEL, codebook_size=ours), steps=1), tmp_path / "run", start_from=model, progress=False
    )
    (state,), before, shared = first_state, model.state_dict(), min(len(theirs), len(ours))
    taken = 0
    for name, tensor in before.items():
        if not name.startswith("levels."):
            continue
        index, rest = name.removeprefix("levels.").split(".", 1)
        here = f"levels.{int(index) + len(ours) - len(theirs)}.{rest}"
        if here in state and state[here].shape == tensor.shape:
            assert torch.equal(state[here], tensor), here
            taken += rest == "quantizer.state.weight"
    assert taken == shared
    drawn_anew = [f"levels.{level}.quantizer.state.num_updates" for level in range(len(ours) - shared)]
    assert not any(state[name] for name in drawn_anew)


def test_a_model_that_shares_nothing_is_refused(tmp_path, photos):
    model = DQAE(
        replace(MODEL, channels=(3, 5), num_codebooks=3, codebook_size=5, codebook_dim=3, likelihood="categorical")
    )
    with pytest.raises(ValueError, match="start_from must share weights with the model to train"):
        train(config(photos), tmp_path / "run", start_from=model, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_stopped_before_its_first_checkpoint_goes_on_from_the_model(tmp_path, photos, monkeypatch):
    """Where it started from is saved as step 0."""
    model = DQAE(MODEL)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(photos, steps=4), whole, start_from=model, progress=False)
    with monkeypatch.context() as patched:
        patched.setattr("depthq.training.module.DQAETraining.training_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config(photos, steps=4), cut, start_from=model, progress=False)
    assert [path.name for path in (cut / "checkpoints").iterdir()] == ["step=00000000.ckpt"]
    train(config(photos, steps=4), cut, progress=False)
    ours, theirs = (folder / "model" / "model.safetensors" for folder in (cut, whole))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_that_has_lost_its_checkpoint_does_not_go_on_from_random_weights(tmp_path, photos):
    model, run = DQAE(MODEL), tmp_path / "run"
    train(config(photos, steps=2), run, start_from=model, progress=False)
    train(config(photos, steps=4), run, progress=False)
    assert load_run_settings(run)["started_from"] == model.fingerprint()
    (checkpoint,) = (run / "checkpoints").iterdir()
    checkpoint.unlink()
    with pytest.raises(ValueError, match=r"run must hold a checkpoint to go on from, .*; begin another run with"):
        train(config(photos, steps=4), run, progress=False)
    assert load_run_settings(run)["started_from"] == model.fingerprint()
    train(config(photos, steps=4), run, start_from=model, progress=False)
