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
from depthq.pixels import psnr_db
from depthq.runs import load_model
from depthq.training.checkpoints import newest_checkpoint
from depthq.training.module import DQAETraining
from studies.dq_paper import Outcome, ResultsStore, Task, run_tasks, runner
from studies.dq_paper.trainings import Training

STEPS = 20
HELD_AT = 12

# A process with two jobs, which stand still ahead of a step.
CHILD = """
import time
from depthq.training.module import DQAETraining

step = DQAETraining.training_step

def training_step(self, images, index):
    return time.sleep(600) if self.global_step == {held_at} else step(self, images, index)

DQAETraining.training_step = training_step

if __name__ == "__main__":
    from studies.dq_paper import Item, Row, command

    rows = (Row(name="tiny", kind="training", options={{"data": "bundled"}}, paper={{}}, seeds=2),)
    command.find_item = lambda name: Item(name="test", title="", protocol="", rows=rows)
    folders = ["--results", {results!r}, "--runs", {runs!r}]
    command.main(["test", "--scale", "miniature", "--jobs", "2", *folders])
"""


def results_of(execution):
    return sorted(execution.results.folder.glob("*.json")) if execution.results.folder.exists() else []


def what_was_found(execution, task):
    result = execution.results.find(task.experiment)
    return result.figures, result.codes, result.curve


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


def test_result_is_stored_with_all_that_the_page_needs(task, execution):
    assert run_tasks([task()], execution) == 0
    result = execution.results.find(task().experiment)
    assert result.figures["images"] == 598
    assert 0 < result.figures["mse_normalized"] < 10
    assert result.figures["mean_entropy_nats"] > 0
    assert len(result.codes["levels"]) == 1
    assert result.curve["step"] == [10, 20]
    assert len(result.curve["mse_normalized"]) == len(result.curve["psnr_db"]) == 2
    assert result.picture is not None
    left = {path.name for path in (execution.runs / task().key).iterdir()}
    assert left == {
        "config.yaml",
        "metrics.jsonl",
        "model",
        "reconstructions",
        "training_images.npy",
        ".lock",
    }  # and no checkpoints


def test_figures_are_those_of_the_model_that_stays(task, execution):
    assert run_tasks([task()], execution) == 0
    model = load_model(execution.runs / task().key)
    (images,) = evaluation_loader(open_images("bundled", "test"), batch_size=598)
    expected = psnr_db(model.reconstruct(images).float(), images.float()).mean().item()
    assert execution.results.find(task().experiment).figures["psnr_db"] == pytest.approx(expected, abs=1e-3)


def test_each_level_alone_is_measured_on_all_images(task, execution):
    two_levels = task(codebook_size=(8, 8))
    assert run_tasks([two_levels], execution) == 0
    model = load_model(execution.runs / two_levels.key)
    (images,) = evaluation_loader(open_images("bundled", "test"), batch_size=598)
    codes = model.encode(images)
    expected = [psnr_db(model.decode(codes, levels=[level]).float(), images.float()).mean().item() for level in (0, 1)]
    figures = execution.results.find(two_levels.experiment).figures
    assert figures["level_alone_psnr_db"] == pytest.approx(expected, abs=1e-3)


def test_finished_experiment_is_not_run_again(task, execution, count_steps):
    assert run_tasks([task()], execution) == 0
    (file,) = results_of(execution)
    before = file.stat().st_mtime_ns
    count_steps.clear()
    assert run_tasks([task(), task()], execution) == 0
    assert count_steps == []
    assert file.stat().st_mtime_ns == before


def test_damaged_result_is_run_again(task, execution, count_steps):
    run_tasks([task()], execution)
    before = what_was_found(execution, task())
    (file,) = results_of(execution)
    file.write_text("{")
    count_steps.clear()
    with pytest.warns(UserWarning, match="must be a whole result"):
        assert run_tasks([task()], execution) == 0
    assert count_steps == list(range(20))  # its checkpoints are gone: from the start
    assert what_was_found(execution, task()) == before


def test_experiment_that_another_process_has_finished_meanwhile_is_not_run(task, execution, monkeypatch, capsys):
    other = replace(execution, runs=execution.runs.with_name("others"))
    original = runner.FileLock

    def lock(path):
        monkeypatch.setattr(runner, "FileLock", original)
        run_tasks([task()], other)
        return original(path)

    monkeypatch.setattr(runner, "FileLock", lock)
    assert run_tasks([task()], execution) == 0
    assert "test/tiny seed 0: there already" in capsys.readouterr().err


def test_result_that_cannot_be_saved_is_measured_again_without_training(task, execution, count_steps, monkeypatch):
    with monkeypatch.context() as full:

        def save(*_, **__):
            raise OSError("No space left on device")

        full.setattr(ResultsStore, "save", save)
        assert run_tasks([task()], execution) == 1
    assert len(count_steps) == 20
    assert run_tasks([task()], execution) == 0
    assert len(count_steps) == 20


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(task, execution, monkeypatch, capsys):
    tasks = [task(seed=seed) for seed in range(3)]
    interrupt(monkeypatch, {1: KeyboardInterrupt()}, step=12)
    with pytest.raises(KeyboardInterrupt, match="run the same again: it goes on where it was"):
        run_tasks(tasks, execution)
    (file,) = results_of(execution)
    assert f"test/tiny seed 0: {file} after" in capsys.readouterr().err
    assert newest_checkpoint(execution.runs / tasks[1].key / "checkpoints").name == "step=00000010.ckpt"
    assert not (execution.runs / tasks[2].key).exists()


def test_failures_are_told_and_do_not_stop_the_others(task, execution, monkeypatch, capsys):
    errors = {0: ValueError("latents must be finite"), 1: OSError("disk full"), 2: RuntimeError("a defect")}
    interrupt(monkeypatch, errors, step=2)
    assert run_tasks([task(seed=seed) for seed in range(4)], execution) == 3
    assert execution.results.find(task(seed=3).experiment) is not None
    assert len(results_of(execution)) == 1
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


def test_process_killed_by_the_system_is_told_with_the_remedy(execution):
    with pytest.raises(OSError, match=r"got a process that was killed, perhaps for want of memory; .* fewer jobs"):
        run_tasks([Task("dying", Dying())], execution)


def is_free(lock) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


@dataclass(frozen=True, kw_only=True)
class Held(Training):
    """A training that stands still ahead of a step; its result would be that of the training."""

    def run(self, folder, sources, *, progress) -> Outcome:
        original = DQAETraining.training_step

        def training_step(self, images, index):
            return time.sleep(600) if self.global_step == HELD_AT else original(self, images, index)

        DQAETraining.training_step = training_step  # of this process, which is killed
        return super().run(folder, sources, progress=progress)


@pytest.fixture
def two_tasks(task):
    return [task(seed=seed) for seed in range(2)]


@pytest.fixture
def wait_until_held(two_tasks, execution):
    """Waits until other processes have the last checkpoint of both tasks ahead of where they stand still."""
    checkpoints = [execution.runs / task.key / "checkpoints" / "step=00000010.ckpt" for task in two_tasks]

    def wait_until_held() -> None:
        started = time.monotonic()
        while not all(checkpoint.exists() for checkpoint in checkpoints):
            assert time.monotonic() < started + 300
            time.sleep(0.02)
        assert not any(is_free(execution.runs / task.key / ".lock") for task in two_tasks)

    return wait_until_held


def test_jobs_do_what_one_does_and_end_with_ctrl_c(task, two_tasks, execution, wait_until_held, tmp_path, capsys):
    failing = Task("test/failing", replace(task().experiment, data="mnist"))
    beside = replace(execution, jobs=2, sources={"mnist": str(tmp_path / "nowhere")})
    held = [Task(task.name, Held(**vars(task.experiment))) for task in two_tasks]
    finished = task(seed=2)

    def press() -> None:
        try:
            wait_until_held()
        finally:
            for process in [*active_children(), current_process()]:  # all of them, as a terminal does
                os.kill(process.pid, signal.SIGINT)

    finger = Thread(target=press)
    finger.start()
    before = dict(os.environ)
    with pytest.raises(KeyboardInterrupt, match="run the same again: it goes on where it was"):
        run_tasks([failing, finished, *held, task(seed=3)], beside)
    finger.join()
    assert dict(os.environ) == before
    assert active_children() == []
    assert all(is_free(execution.runs / task.key / ".lock") for task in two_tasks)
    assert [execution.results.find(task.experiment) for task in two_tasks] == [None, None]
    assert "test/failing: failed: data set mnist must be readable" in capsys.readouterr().err
    alone = replace(execution, results=ResultsStore(tmp_path / "alone"), runs=tmp_path / "alone-runs")
    assert run_tasks([finished], alone) == 0
    assert what_was_found(beside, finished) == what_was_found(alone, finished)


@pytest.fixture
def start(tmp_path, execution):
    """Starts CHILD."""
    script = tmp_path / "child.py"
    folders = {"results": str(execution.results.folder), "runs": str(execution.runs)}
    script.write_text(CHILD.format(held_at=HELD_AT, **folders))
    children = []

    def start() -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        options = {"stderr": subprocess.PIPE, "start_new_session": True, "env": environment}
        children.append(subprocess.Popen([sys.executable, script], **options))
        return children[-1]

    yield start
    for child in children:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def test_killed_run_ends_with_its_workers_and_goes_on_to_the_same_result(
    two_tasks, execution, start, wait_until_held, count_steps, tmp_path
):
    child = start()
    wait_until_held()
    child.kill()
    child.communicate(timeout=300)  # ends when the last process that holds stderr does
    assert all(is_free(execution.runs / task.key / ".lock") for task in two_tasks)
    task = two_tasks[0]
    assert run_tasks([task], execution) == 0
    assert count_steps == list(range(10, STEPS))
    whole = replace(execution, results=ResultsStore(tmp_path / "whole"), runs=tmp_path / "whole-runs")
    assert run_tasks([task], whole) == 0
    assert what_was_found(execution, task) == what_was_found(whole, task)
