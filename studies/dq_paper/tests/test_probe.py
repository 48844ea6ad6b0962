"""How long experiments will take: told from a few steps on noise."""

import time
from types import SimpleNamespace

import pytest

from studies.dq_paper import Task, expected_seconds, probe
from studies.dq_paper.codecs import Codec


@pytest.fixture
def probed(monkeypatch):
    """The experiments that are timed, at 0.5 s a step."""
    experiments = []

    def seconds_per_step(experiment):
        experiments.append(experiment)
        return 0.5

    monkeypatch.setattr(probe, "_seconds_per_step", seconds_per_step)
    return experiments


def test_time_is_that_of_the_steps(task, probed):
    slow = task(times_steps=3)
    assert expected_seconds([slow]) == {slow.name: 30}


def test_every_stage_of_a_progressive_run_takes_its_steps(task, probed):
    staged = task(kind="progressive", image_sizes=[8, 16, 32])
    assert expected_seconds([staged]) == {staged.name: 30}


def test_of_like_experiments_the_one_with_most_codes_is_timed(task, probed):
    tasks = [task(seed, num_codebooks=count) for seed, count in enumerate((1, 10, 3))]
    assert len(expected_seconds(tasks)) == 3
    assert probed == [tasks[1].experiment]


def test_unlike_experiments_are_timed_apart(task, probed):
    tasks = [task(0), task(1, likelihood="categorical"), task(2, codebook_size=(8, 8))]
    expected_seconds(tasks)
    assert probed == [task.experiment for task in tasks]


def test_what_trains_nothing_is_not_timed(probed):
    codec = Codec(data="bundled", codec="JPEG", quality=5, arrangement="files")
    assert expected_seconds([Task("test/jpeg", codec)]) == {}


def test_steps_are_really_taken(task):
    started = time.perf_counter()
    (seconds,) = expected_seconds([task()]).values()
    elapsed = time.perf_counter() - started
    assert 0 < seconds < 2 * elapsed  # 20 steps were timed for 20: most of them took that or longer


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
