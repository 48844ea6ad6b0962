"""How long experiments will take on this machine, from a few training steps on noise: no data is needed."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from depthq.models import DQAE
from depthq.training import default_precision, paper_objective
from studies.dq_paper.data_sets import DATA_SETS
from studies.dq_paper.runner import Task
from studies.dq_paper.trainings import Progressive, Training

NUM_STEPS = 20
_WARM_UP_STEPS = 3
_LONGEST_SECONDS = 20  # the paper's network takes long for a step on a CPU: as many as fit in here have to do


def expected_seconds(tasks: Sequence[Task]) -> dict[str, float]:
    """Seconds of training by task name, for those tasks that train.

    Of the tasks with the same likelihood and grid, on which the time depends most, the one with the most codes is
    timed, and its time is taken for the others: an estimate, without validation and the final measurement, on as many
    threads as torch has here.

    Raises:
        ValueError: If a quantizer needs a package that is not installed.
    """
    groups: dict[tuple, list[Task]] = {}
    for task in tasks:
        if isinstance(task.experiment, (Training, Progressive)):
            groups.setdefault(_group(task.experiment), []).append(task)
    seconds = {}
    for group in groups.values():
        heaviest = max(group, key=lambda task: _num_codes(task.experiment))  # type: ignore[arg-type]
        per_step = _seconds_per_step(heaviest.experiment)  # type: ignore[arg-type]
        for task in group:
            seconds[task.name] = per_step * _num_steps(task.experiment)  # type: ignore[arg-type]
    return seconds


def _group(experiment: Training | Progressive) -> tuple:
    model = experiment.model
    return model.likelihood, model.num_levels, model.channels, experiment.data, experiment.training.batch_size


def _num_codes(experiment: Training | Progressive) -> int:
    return experiment.model.num_codebooks * sum(experiment.model.level_sizes)


def _num_steps(experiment: Training | Progressive) -> int:
    stages = len(experiment.image_sizes) if isinstance(experiment, Progressive) else 1
    return stages * experiment.training.steps


def _seconds_per_step(experiment: Training | Progressive) -> float:
    """Of a step on random images, at the experiment's precision, on the device that would train."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = experiment.training.precision
    precision = default_precision() if precision == "auto" else precision
    model = DQAE(experiment.model).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    shape = (experiment.training.batch_size, *DATA_SETS[experiment.data].shape)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision != "32-true"):
            loss = paper_objective(model, images, model(images)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return _typical_seconds(step)


def _typical_seconds(step: Callable[[], None]) -> float:
    """The lower quartile: what else runs on the machine only ever makes a step slower."""
    times: list[float] = []
    while len(times) < NUM_STEPS and sum(times) < _LONGEST_SECONDS:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return float(np.quantile(times[_WARM_UP_STEPS:] or times, 0.25))
