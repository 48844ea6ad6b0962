"""Loggers by name, each with its own package; a run's metrics reach them."""

import pytest

from depthq.cli import main
from depthq.runs import read_metrics
from depthq.training import Hardware
from depthq.training.loggers import make_loggers

TINY = ["--preset", "tiny", "--data", "bundled", "--steps", "4", "--precision", "32-true", "--log-every", "2"]


def test_metrics_jsonl_is_written_and_nothing_else_unless_asked_for(tmp_path):
    assert [type(logger).__name__ for logger in make_loggers(tmp_path, None)] == ["MetricsFile"]


def test_an_unknown_logger_is_refused():
    with pytest.raises(ValueError, match="logger must be one of tensorboard, wandb, mlflow, or None; got 'print'"):
        Hardware(logger="print")


def test_a_logger_whose_package_is_missing_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("depthq.training.loggers.is_installed", lambda package: False)
    with pytest.raises(ValueError, match="logger wandb must be installed; it is not; pip install wandb, or leave"):
        make_loggers(tmp_path, "wandb")


@pytest.mark.filterwarnings("default")  # of tensorboard's own imports
def test_tensorboard_has_what_metrics_jsonl_has(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert main(["train", *TINY, "--out", str(run), "--logger", "tensorboard"]) == 0
    shown = EventAccumulator(str(run / "tensorboard"))
    shown.Reload()
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
    assert [event.step for event in shown.Scalars("loss")] == [row["step"] for row in rows] == [2, 4]
    assert shown.Scalars("loss")[0].value == pytest.approx(rows[0]["loss"])


@pytest.mark.filterwarnings("default")
def test_wandb_keeps_a_run_in_the_folder(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    assert main(["train", *TINY, "--out", str(run), "--logger", "wandb"]) == 0
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
