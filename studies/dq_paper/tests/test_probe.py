"""What experiments will take: told from a few steps on noise."""

import time
from types import SimpleNamespace

import pytest

from studies.dq_paper import Effort, Task, expected_effort, probe
from studies.dq_paper.codecs import Codec


@pytest.fixture
def probed(monkeypatch):
    """The experiments that are timed, at 0.5 s and 100 operations a step."""
    experiments = []

    def effort_of_step(experiment):
        experiments.append(experiment)
        return Effort(0.5, 100)

    monkeypatch.setattr(probe, "_effort_of_step", effort_of_step)
    return experiments


def test_time_is_that_of_the_steps(task, probed):
    slow = task(times_steps=3)
    assert expected_effort([slow]) == {slow.name: Effort(30, 6000)}


def test_a_stage_of_a_progressive_run_counts_by_its_pixels(task, probed):
    staged = task(kind="progressive", image_sizes=[8, 16, 32])
    assert expected_effort([staged]) == {staged.name: Effort(13.125, 2625)}  # 1 + 1/4 + 1/16 times 20 steps


def test_of_like_experiments_the_one_with_most_codes_is_timed(task, probed):
    tasks = [task(seed, num_codebooks=count) for seed, count in enumerate((1, 10, 3))]
    assert len(expected_effort(tasks)) == 3
    assert probed == [tasks[1].experiment]


def test_unlike_experiments_are_timed_apart(task, probed):
    tasks = [task(0), task(1, likelihood="categorical"), task(2, codebook_size=(8, 8))]
    expected_effort(tasks)
    assert probed == [task.experiment for task in tasks]


def test_what_trains_nothing_is_not_timed(probed):
    codec = Codec(data="bundled", codec="JPEG", quality=5, arrangement="files")
    assert expected_effort([Task("test/jpeg", codec)]) == {}


def test_steps_are_really_taken(task):
    started = time.perf_counter()
    (effort,) = expected_effort([task()]).values()
    elapsed = time.perf_counter() - started
    assert 0 < effort.seconds < 2 * elapsed  # 20 steps were timed for 20: most of them took that or longer


@pytest.fixture
def seconds_passed(monkeypatch):
    """All that the probe's clock knows of time: append to it."""
    passed = []
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: sum(passed)))
    return passed


def test_probe_stops_early_where_a_step_takes_long(seconds_passed):
    assert probe._typical_seconds(lambda: seconds_passed.append(30)) == 30
    assert seconds_passed == [30]


def test_first_steps_do_not_count(seconds_passed):
    pauses = iter([4, 4, 4] + 17 * [0.25])
    assert probe._typical_seconds(lambda: seconds_passed.append(next(pauses))) == 0.25


def test_operations_are_those_of_the_layers_whatever_the_batch(task):
    small, large = (probe._effort_of_step(task(batch_size=size).experiment).operations for size in (2, 6))
    assert large == 3 * small > 0


def test_on_a_cpu_large_images_are_timed_few_at_a_time(task, monkeypatch):
    experiment = task(batch_size=8).experiment
    whole = probe._effort_of_step(experiment).operations
    monkeypatch.setattr(probe, "_MOST_PIXELS_ON_CPU", 2 * 32 * 32)
    assert probe._effort_of_step(experiment).operations == whole
