"""What experiments will take: time on this machine and arithmetic, from a few training steps on noise, without data."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from depthq.models import DQAE
from depthq.training import default_precision, paper_objective
from studies.dq_paper.data_sets import DATA_SETS
from studies.dq_paper.runner import Task
from studies.dq_paper.trainings import Progressive, Training

NUM_STEPS = 20
_WARM_UP_STEPS = 3
_LONGEST_SECONDS = 20  # the paper's network takes long for a step on a CPU: as many as fit in here have to do
_MOST_PIXELS_ON_CPU = 2**16  # of a step that is timed there, one image of 256 x 256: more would take minutes


@dataclass(frozen=True)
class Effort:
    """What a training takes, without validation and the final measurement."""

    seconds: float
    """On as many threads as torch has here, or on the GPU if there is one: an estimate."""
    operations: float
    """Floating-point, of matrix products and convolutions: how many the training is made of, on any machine."""


def expected_effort(tasks: Sequence[Task]) -> dict[str, Effort]:
    """By task name, for those tasks that train.

    Of the tasks with the same likelihood and grid, on which the time depends most, the one with the most codes is
    timed, and what it takes is taken for the others.

    Raises:
        ValueError: If a quantizer needs a package that is not installed.
    """
    groups: dict[tuple, list[Task]] = {}
    for task in tasks:
        if isinstance(task.experiment, (Training, Progressive)):
            groups.setdefault(_group(task.experiment), []).append(task)
    effort = {}
    for group in groups.values():
        heaviest = max(group, key=lambda task: _num_codes(task.experiment))  # type: ignore[arg-type]
        per_step = _effort_of_step(heaviest.experiment)  # type: ignore[arg-type]
        for task in group:
            steps = _num_steps(task.experiment)  # type: ignore[arg-type]
            effort[task.name] = Effort(steps * per_step.seconds, steps * per_step.operations)
    return effort


def _group(experiment: Training | Progressive) -> tuple:
    model = experiment.model
    return model.likelihood, model.num_levels, model.channels, experiment.data, experiment.training.batch_size


def _num_codes(experiment: Training | Progressive) -> int:
    return experiment.model.num_codebooks * sum(experiment.model.level_sizes)


def _num_steps(experiment: Training | Progressive) -> float:
    """Of images of full size; those of smaller ones count by their pixels."""
    steps = experiment.training.steps
    if isinstance(experiment, Training):
        return steps
    full_size = DATA_SETS[experiment.data].shape[-1]
    return sum(steps * (size / full_size) ** 2 for size in experiment.image_sizes)


def _effort_of_step(experiment: Training | Progressive) -> Effort:
    """Of a step on random images, at the experiment's precision, on the device that would train."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = experiment.training.precision
    precision = default_precision() if precision == "auto" else precision
    model = DQAE(experiment.model).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    channels, height, width = DATA_SETS[experiment.data].shape
    batch_size = experiment.training.batch_size
    most = batch_size if device == "cuda" else max(1, _MOST_PIXELS_ON_CPU // (height * width))
    probed = min(batch_size, most)
    images = torch.randint(0, 256, (probed, channels, height, width), dtype=torch.uint8, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision != "32-true"):
            loss = paper_objective(model, images, model(images)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    with FlopCounterMode(display=False) as counter:
        step()
    scale = batch_size / probed
    return Effort(scale * _typical_seconds(step), scale * counter.get_total_flops())


def _typical_seconds(step: Callable[[], None]) -> float:
    """The lower quartile: what else runs on the machine only ever makes a step slower."""
    times: list[float] = []
    while len(times) < NUM_STEPS and sum(times) < _LONGEST_SECONDS:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return float(np.quantile(times[_WARM_UP_STEPS:] or times, 0.25))
