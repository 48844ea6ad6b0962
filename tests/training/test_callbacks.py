"""Callbacks work with whatever they are given functions of: none needs a DQ-AE."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from depthq.runs import read_metrics
from depthq.training.callbacks import Grids, MetricsFile, TrainingRows, ValidationRows


class Rows:
    """A logger that keeps its rows."""

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step):
        self.rows.append({"step": step, **metrics})


@pytest.fixture
def trainer():
    return SimpleNamespace(global_step=0, world_size=1, loggers=[Rows()])


def test_training_rows_hold_the_metrics_and_the_speed_every_so_many_steps(trainer):
    callback = TrainingRows(2, lambda: {"loss": float(trainer.global_step)})
    callback.on_train_start()
    for trainer.global_step in range(1, 5):
        callback.on_train_batch_end(trainer, None, None, torch.zeros(3), 0)
    rows = trainer.loggers[0].rows
    assert [(row["step"], row["loss"]) for row in rows] == [(2, 2.0), (4, 4.0)]
    assert all(row["images_per_second"] > 0 for row in rows)
    assert {"step": 4, **callback.last} == rows[-1]


def test_validation_rows_hold_the_metrics_and_warnings_are_told(trainer, capsys):
    trainer.global_step = 7
    ValidationRows(lambda: {"validation_loss": 1.0}, lambda: ["all is lost"]).on_validation_end(trainer)
    assert trainer.loggers[0].rows == [{"step": 7, "validation_loss": 1.0}]
    assert capsys.readouterr().err == "step 7: all is lost\n"


def test_grids_show_what_any_function_makes_of_the_images(trainer, tmp_path):
    images = torch.zeros(1, 1, 96, 96, dtype=torch.uint8)
    Grids(tmp_path, images, lambda images: images + 200).on_validation_end(trainer, SimpleNamespace(device="cpu"))
    picture = Image.open(tmp_path / "step=00000000.png")
    assert picture.getpixel((5, 5)) == 0
    assert picture.getpixel((5, 96 + 2 + 5)) == 200


def test_rows_of_steps_that_a_resumed_run_repeats_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5, "loss": 0.1}\n{"step": 10, "loss": 1e-07}\n{"step": 15, "lo')
    MetricsFile(path, first_step=5).log_metrics({"loss": 0.5}, step=10)
    assert path.read_text() == '{"step": 5, "loss": 0.1}\n{"step": 10, "loss": 0.5}\n'
    assert [row["step"] for row in read_metrics(path)] == [5, 10]
