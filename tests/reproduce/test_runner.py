"""Experiments are run once, go on where they were killed, and do not stand in each other's way."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import active_children, current_process
from threading import Thread
from typing import ClassVar

import pytest
from filelock import FileLock, Timeout

from depthq.data import evaluation_loader, open_images
from depthq.evaluation import psnr_db, reconstruct
from depthq.reproduce import Outcome, ResultsStore, Task, run_tasks, runner
from depthq.run_folder import load_model
from depthq.training.checkpoints import newest_checkpoint
from depthq.training.module import DQAETraining

# A process that runs the miniature row; told to die, it is killed behind its first checkpoint.
CHILD = """
if __name__ == "__main__":
    import os, signal, sys
    from pathlib import Path
    from depthq.cli import main, reproduce
    from depthq.reproduce import Item, Row
    from depthq.training.checkpoints import Checkpoints

    if "die" in sys.argv:
        def save(self, trainer, original=Checkpoints.save):
            original(self, trainer)
            os.kill(os.getpid(), signal.SIGKILL)
        Checkpoints.save = save
    options = {{"data": "bundled", "times_steps": {times_steps}}}
    rows = (Row(name="tiny", kind="training", options=options, paper={{}}, seeds={seeds}),)
    reproduce.find_item = lambda name: Item(name="test", title="", protocol="", rows=rows)
    folder = Path({folder!r})
    arguments = ["--results", str(folder / "results"), "--runs", str(folder / "runs"), "--jobs", "{seeds}"]
    sys.exit(main(["reproduce", "test", "--scale", "miniature", *arguments]))
"""


def results_of(workplace):
    return sorted(workplace.results.folder.glob("*.json")) if workplace.results.folder.exists() else []


def what_was_found(workplace, task):
    result = workplace.results.find(task.experiment)
    return result.figures, result.codes, result.curve


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a process that runs the miniature row with 1 seed, or with as many jobs as seeds."""

    children = []

    def start(folder, *, seeds: int, times_steps: float = 1, die: bool = False) -> subprocess.Popen:
        script = tmp_path_factory.mktemp("script") / "child.py"
        script.write_text(CHILD.format(folder=str(folder), seeds=seeds, times_steps=times_steps))
        command = [sys.executable, script, *(["die"] if die else [])]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment)
        children.append(child)
        return child

    yield start
    for child in children:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


@pytest.fixture
def count_steps(monkeypatch):
    """A list that grows by the number of each training step that is taken."""
    steps = []
    original = DQAETraining.training_step

    def training_step(self, images, index):
        steps.append(self.global_step)
        return original(self, images, index)

    monkeypatch.setattr(DQAETraining, "training_step", training_step)
    return steps


def interrupt(monkeypatch, errors, step):
    """Raise, at a step, the error of a run's seed."""
    original = DQAETraining.training_step

    def training_step(self, images, index):
        if self.global_step == step and self.config.seed in errors:
            raise errors[self.config.seed]
        return original(self, images, index)

    monkeypatch.setattr(DQAETraining, "training_step", training_step)


def test_result_is_stored_with_all_that_the_page_needs(task, workplace):
    assert run_tasks([task()], workplace) == 0
    result = workplace.results.find(task().experiment)
    assert result.figures["images"] == 598
    assert 0 < result.figures["mse_normalized"] < 10
    assert result.figures["mean_entropy_nats"] > 0
    assert len(result.codes["levels"]) == 1
    assert result.curve["step"] == [10, 20]
    assert len(result.curve["mse_normalized"]) == len(result.curve["psnr_db"]) == 2
    assert result.picture is not None
    left = {path.name for path in (workplace.runs / task().key).iterdir()}
    assert left == {"config.yaml", "metrics.jsonl", "model", "reconstructions", ".lock"}  # and no checkpoints


def test_figures_are_those_of_the_model_that_stays(task, workplace):
    assert run_tasks([task()], workplace) == 0
    model = load_model(workplace.runs / task().key)
    (images,) = evaluation_loader(open_images("bundled", "test"), batch_size=598)
    expected = psnr_db(reconstruct(model, images).float(), images.float()).mean().item()
    assert workplace.results.find(task().experiment).figures["psnr_db"] == pytest.approx(expected, abs=1e-3)


def test_finished_experiment_is_not_run_again(task, workplace, count_steps):
    assert run_tasks([task()], workplace) == 0
    (file,) = results_of(workplace)
    before = file.stat().st_mtime_ns
    count_steps.clear()
    assert run_tasks([task(), task()], workplace) == 0
    assert count_steps == []
    assert file.stat().st_mtime_ns == before


def test_damaged_result_is_run_again(task, workplace, count_steps):
    run_tasks([task()], workplace)
    before = what_was_found(workplace, task())
    (file,) = results_of(workplace)
    file.write_text("{")
    count_steps.clear()
    with pytest.warns(UserWarning, match="must be a whole result"):
        assert run_tasks([task()], workplace) == 0
    assert count_steps == list(range(20))  # its checkpoints are gone: from the start
    assert what_was_found(workplace, task()) == before


def test_experiment_that_another_process_has_finished_meanwhile_is_not_run(task, workplace, monkeypatch, capsys):
    other = replace(workplace, runs=workplace.runs.with_name("others"))
    original = runner.FileLock

    def lock(path):
        monkeypatch.setattr(runner, "FileLock", original)
        run_tasks([task()], other)
        return original(path)

    monkeypatch.setattr(runner, "FileLock", lock)
    assert run_tasks([task()], workplace) == 0
    assert "test/tiny seed 0: there already" in capsys.readouterr().err


def test_killed_run_goes_on_to_the_same_result(task, workplace, start, tmp_path, count_steps):
    whole = replace(workplace, results=ResultsStore(tmp_path / "whole"), runs=tmp_path / "whole-runs")
    assert run_tasks([task()], whole) == 0
    child = start(tmp_path, seeds=1, die=True)
    child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    assert results_of(workplace) == []
    assert newest_checkpoint(workplace.runs / task().key / "checkpoints").name == "step=00000005.ckpt"
    count_steps.clear()
    assert run_tasks([task()], workplace) == 0
    assert count_steps == list(range(5, 20))
    assert what_was_found(workplace, task()) == what_was_found(whole, task())


def test_result_that_cannot_be_saved_is_measured_again_without_training(task, workplace, count_steps, monkeypatch):
    with monkeypatch.context() as full:

        def save(*_, **__):
            raise OSError("No space left on device")

        full.setattr(ResultsStore, "save", save)
        assert run_tasks([task()], workplace) == 1
    assert len(count_steps) == 20
    assert run_tasks([task()], workplace) == 0
    assert len(count_steps) == 20


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(task, workplace, monkeypatch, capsys):
    tasks = [task(seed=seed) for seed in range(3)]
    interrupt(monkeypatch, {1: KeyboardInterrupt()}, step=12)
    with pytest.raises(KeyboardInterrupt, match="run the same again: it goes on where it was"):
        run_tasks(tasks, workplace)
    (file,) = results_of(workplace)
    assert f"test/tiny seed 0: {file} after" in capsys.readouterr().err
    assert newest_checkpoint(workplace.runs / tasks[1].key / "checkpoints").name == "step=00000010.ckpt"
    assert not (workplace.runs / tasks[2].key).exists()


def test_failures_are_told_and_do_not_stop_the_others(task, workplace, monkeypatch, capsys):
    errors = {0: ValueError("latents must be finite"), 1: OSError("disk full"), 2: RuntimeError("a defect")}
    interrupt(monkeypatch, errors, step=2)
    assert run_tasks([task(seed=seed) for seed in range(4)], workplace) == 3
    assert workplace.results.find(task(seed=3).experiment) is not None
    assert len(results_of(workplace)) == 1
    err = capsys.readouterr().err
    assert "test/tiny seed 0: failed: latents must be finite\n" in err
    assert "test/tiny seed 1: failed: disk full\n" in err
    assert re.search("test/tiny seed 2: failed: Traceback .*in training_step.*RuntimeError: a defect", err, re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Dying:
    """An experiment whose process the system kills."""

    kind: ClassVar[str] = "dying"
    data: str = "bundled"

    def run(self, folder, sources, *, progress) -> Outcome:
        raise BrokenProcessPool


def test_process_killed_by_the_system_is_told_with_the_remedy(workplace):
    with pytest.raises(OSError, match=r"got a process that was killed, perhaps for want of memory; .* fewer jobs"):
        run_tasks([Task("dying", Dying())], workplace)


def wait_for(condition, seconds=120):
    for _ in range(20 * seconds):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def is_free(lock) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


@pytest.fixture
def long_tasks(task, workplace):
    """Two tasks of some seconds, and a function that waits until both are under way in other processes."""
    tasks = [task(seed=seed, times_steps=20) for seed in range(2)]
    folders = [workplace.runs / task.key for task in tasks]

    def wait_until_started() -> None:
        wait_for(lambda: all(newest_checkpoint(folder / "checkpoints") for folder in folders))
        assert not any(is_free(folder / ".lock") for folder in folders)

    return tasks, wait_until_started


def test_ctrl_c_ends_all_jobs_at_once(long_tasks, task, workplace, monkeypatch):
    tasks, wait_until_started = long_tasks
    waiting = task(seed=2)

    def press() -> None:
        wait_until_started()
        for process in [*active_children(), current_process()]:  # as a terminal does
            os.kill(process.pid, signal.SIGINT)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    finger = Thread(target=press)
    finger.start()
    with pytest.raises(KeyboardInterrupt, match="run the same again: it goes on where it was"):
        run_tasks([*tasks, waiting], replace(workplace, jobs=2))
    finger.join()
    assert active_children() == []
    assert all(is_free(workplace.runs / task.key / ".lock") for task in tasks)
    assert len(results_of(workplace)) < 2
    assert not (workplace.runs / waiting.key).exists()


def test_workers_end_with_a_parent_that_is_killed(long_tasks, workplace, start, tmp_path):
    tasks, wait_until_started = long_tasks
    child = start(tmp_path, seeds=2, times_steps=20)
    wait_until_started()
    child.kill()
    child.communicate(timeout=60)  # ends when the last process that holds stderr does
    assert all(is_free(workplace.runs / task.key / ".lock") for task in tasks)
    assert len(results_of(workplace)) < 2


def test_several_jobs_find_what_one_finds(task, workplace, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = dict(os.environ)
    tasks = [task(), task(seed=1)]
    failing = Task("test/failing", replace(task().experiment, data="mnist"))
    beside = replace(workplace, jobs=2, sources={"mnist": str(tmp_path / "nowhere")})
    assert run_tasks([failing, *tasks], beside) == 1
    assert dict(os.environ) == before
    alone = replace(workplace, results=ResultsStore(tmp_path / "alone"), runs=tmp_path / "alone-runs")
    assert run_tasks(tasks[1:], alone) == 0
    assert what_was_found(beside, tasks[1]) == what_was_found(alone, tasks[1])
    assert beside.results.find(tasks[0].experiment) is not None
