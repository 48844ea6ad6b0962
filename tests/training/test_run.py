"""Runs of `train` as a library: what stops them, what they learn, what they leave."""

from dataclasses import replace

import pytest
import torch
import yaml
from safetensors import SafetensorError

from depthq import DQAE
from depthq.models import PRESETS
from depthq.quantizers import NonFiniteLatentsError, health
from depthq.runs import load_model, read_metrics
from depthq.training import TRAINING_PRESETS, DataConfig, Hardware, RunConfig, train
from depthq.training.checkpoints import newest_checkpoint
from depthq.training.module import DQAETraining


def tiny(data, model=PRESETS["tiny"], **training) -> RunConfig:
    return RunConfig(
        data=DataConfig(data=str(data)), model=model, training=replace(TRAINING_PRESETS["tiny"], **training)
    )


def poison(monkeypatch, step, value):
    """Let the encoder's latents hold `value` at one step (counted from 1)."""
    original = DQAETraining.training_step

    def training_step(self, images, index):
        if self.global_step + 1 == step:
            encoder = self.model.levels[0].encoder
            handle = encoder.register_forward_hook(lambda *args: args[-1] + value)
            try:
                return original(self, images, index)
            finally:
                handle.remove()
        return original(self, images, index)

    monkeypatch.setattr(DQAETraining, "training_step", training_step)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_latents_stop_training_at_their_step(tmp_path, photos, monkeypatch, value):
    config = tiny(photos, steps=12, checkpoint_every=4, validate_every=4)
    train(config, tmp_path / "whole", progress=False)
    with monkeypatch.context() as poisoned:
        poison(poisoned, 7, value)
        with pytest.raises(NonFiniteLatentsError, match=r"training stopped at step 7: .* must be finite"):
            train(config, tmp_path / "run", progress=False)
    checkpoint = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "step=00000004.ckpt"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values())
    train(config, tmp_path / "run", progress=False)
    whole, resumed = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "run"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_broken_gradient_stops_training_before_it_ruins_the_weights(tmp_path, photos, monkeypatch):
    original = DQAETraining.training_step

    def training_step(self, images, index):
        loss = original(self, images, index)
        return loss * (float("inf") if self.global_step + 1 == 3 else 1) if self.global_step < 3 else loss

    monkeypatch.setattr(DQAETraining, "training_step", training_step)
    with pytest.raises(
        NonFiniteLatentsError, match="training stopped at step 3: the gradient must be finite; got norm"
    ):
        train(tiny(photos, steps=6, checkpoint_every=1), tmp_path / "run", progress=False)
    state = torch.load(newest_checkpoint(tmp_path / "run" / "checkpoints"), weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_full_disk_for_the_model_is_an_error_of_the_system(tmp_path, photos, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(DQAE, "save_pretrained", full)
    with pytest.raises(OSError, match="model could not be written: No space left on device; make room"):
        train(tiny(photos, steps=2), tmp_path / "run", progress=False)


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2"])
def test_strategy_that_cuts_weights_in_pieces_is_refused(strategy):
    with pytest.raises(ValueError, match=f"strategy must leave each device the whole model; got {strategy}; use ddp"):
        Hardware(strategy=strategy)


def test_non_finite_loss_stops_training_without_a_quantizer_too(tmp_path, photos, monkeypatch):
    poison(monkeypatch, 3, float("nan"))
    config = tiny(photos, replace(PRESETS["tiny"], quantizer="none"), steps=5)
    with pytest.raises(ValueError, match=r"training stopped at step 3: the loss must be finite; got nan"):
        train(config, tmp_path / "run", progress=False)


def test_codebooks_are_untouched_by_non_finite_latents(monkeypatch, photos):
    model = DQAE(PRESETS["tiny"])
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    model(images)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "quantizer" in name}
    model.levels[0].encoder.register_forward_hook(lambda *args: args[-1] * float("nan"))
    with pytest.raises(NonFiniteLatentsError):
        model(images)
    after = model.state_dict()
    assert before
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_training_holds_the_documented_schedule():
    module = DQAETraining(DQAE(PRESETS["tiny"]), replace(TRAINING_PRESETS["tiny"], steps=100, warmup_steps=10))
    scheduler = module.configure_optimizers()["lr_scheduler"]["scheduler"]
    schedule = scheduler.lr_lambdas[0]
    network, head = scheduler.optimizer.param_groups
    assert network["weight_decay"] == head["weight_decay"] == module.config.weight_decay
    assert network["initial_lr"] == module.config.learning_rate
    assert head["initial_lr"] == module.config.learning_rate * module.model.likelihood.head_learning_rate
    assert schedule(0) == pytest.approx(0.1)  # the first of ten steps of warm-up
    assert max(map(schedule, range(100))) <= 1
    assert schedule(50) == pytest.approx(0.5)  # half-way down the cosine
    assert schedule(100) == pytest.approx(0)


def test_model_on_disk_is_that_of_the_last_checkpoint(trained_run):
    checkpoint = newest_checkpoint(trained_run / "checkpoints")
    assert checkpoint is not None
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    model = load_model(trained_run).state_dict()
    assert state.keys() == {f"model.{name}" for name in model}
    assert all(torch.equal(state[f"model.{name}"], tensor) for name, tensor in model.items())


def test_rows_hold_finite_metrics(trained_run):
    rows = read_metrics(trained_run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [5, 10, 10]
    assert {"loss", "nll_bits_per_dim", "commitment_loss", "usage", "perplexity", "images_per_second"} < rows[0].keys()
    assert {"validation_total_bits_per_dim", "validation_psnr_db", "validation_ssim"} < rows[-1].keys()
    assert all(float("-inf") < value < float("inf") for row in rows for value in row.values())


def test_health_of_the_codebooks_is_logged(trained_run):
    row = read_metrics(trained_run / "metrics.jsonl")[-1]
    found = load_model(trained_run).levels[0].quantizer.health()
    assert row["level_0_lowest_usage"] == found.usage.min().item()
    assert row["level_0_lowest_perplexity"] == found.perplexity.min().item()
    assert row["level_0_redrawn"] == found.redrawn.sum().item() > 0  # initialisation draws every code


def test_collapse_is_told_at_the_validation(tmp_path, photos, monkeypatch, capsys):
    monkeypatch.setattr(health, "COLLAPSED_PERPLEXITY", 1.1)  # every codebook then counts as collapsed
    train(tiny(photos, steps=2), tmp_path / "run", progress=False)
    assert "step 2: codebooks of level 0 have collapsed\ncodebook    size   usage" in capsys.readouterr().err


def test_wrong_hardware_leaves_no_run(tmp_path, photos):
    with pytest.raises(ValueError, match="hardware must fit this machine"):
        train(tiny(photos), tmp_path / "run", hardware=Hardware(accelerator="hpu"), progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("batch_size", 0), ("seed", -1), ("gradient_clip", -1.0), ("log_every", 0)]
)
def test_training_settings_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be at least \d; got {value}"):
        replace(TRAINING_PRESETS["tiny"], **{field: value})


def test_learning_rate_must_be_positive():
    with pytest.raises(ValueError, match="learning_rate must be positive; got 0"):
        replace(TRAINING_PRESETS["tiny"], learning_rate=0)


def test_config_file_holds_plain_yaml(trained_run):
    settings = yaml.safe_load((trained_run / "config.yaml").read_text())
    assert all(isinstance(value, (str, int, float, bool, list, type(None))) for value in settings.values())
