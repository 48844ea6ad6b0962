"""Runs experiments that have no result yet, several at a time, each from where a killed run left it."""

import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread

from filelock import FileLock, Timeout
from tqdm import tqdm

from studies.dq_paper.declared import Item, Row
from studies.dq_paper.experiment import Experiment
from studies.dq_paper.keys import content_of, key_of
from studies.dq_paper.results import ResultsStore
from studies.dq_paper.scales import Scale


@dataclass(frozen=True)
class Task:
    """An experiment, and what it is called."""

    name: str
    """item/row, and the seed."""
    experiment: Experiment

    @property
    def key(self) -> str:
        return key_of(content_of(self.experiment))


@dataclass(frozen=True)
class ExecutionSettings:
    """Where experiments run, and how many at a time."""

    results: ResultsStore
    runs: Path
    """Work in progress, a folder for each experiment."""
    sources: Mapping[str, str]
    """Where data sets are, by name; those not named come from the hub."""
    jobs: int
    """Experiments at a time; they share the processor's cores evenly."""


def tasks_of(rows: Sequence[tuple[Item, Row]], scale: Scale, seeds: Sequence[int] = ()) -> list[Task]:
    """The experiments of some rows, one per seed of those that have one; rows say how many where none are given."""
    return [
        Task(f"{item.name}/{row.name}" + (f" seed {seed}" if row.has_scale else ""), row.experiment(scale, seed))
        for item, row in rows
        for seed in ((seeds or range(row.seeds)) if row.has_scale else [0])
    ]


def distinct(tasks: Sequence[Task]) -> list[Task]:
    """The tasks without those whose experiment an earlier one has already."""
    first: dict[str, Task] = {}
    for task in tasks:
        first.setdefault(task.key, task)
    return list(first.values())


def run_tasks(tasks: Sequence[Task], settings: ExecutionSettings) -> int:
    """Run what has no result yet, and save each result when it is there.

    An experiment that fails is reported, and does not stop the others.

    Returns:
        How many failed.

    Raises:
        OSError: If the system kills a process of several jobs.
        KeyboardInterrupt: On Ctrl+C, at once; what was running goes on from its checkpoints another time.
    """
    missing = [task for task in distinct(tasks) if settings.results.find(task.experiment) is None]
    run = _in_turn if settings.jobs == 1 else _side_by_side
    try:
        with closing(run(missing, settings)) as runs:
            bar = tqdm(runs, total=len(missing), unit="experiment", disable=not missing)
            return sum(not _succeeds(task, outcome) for task, outcome in bar)
    except BrokenProcessPool as error:
        raise OSError(
            "experiments must run to their end; got a process that was killed, perhaps for want of memory; run the "
            "same again with fewer jobs: it goes on where it was"
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; run the same again: it goes on where it was") from None


def _succeeds(task: Task, outcome: Callable[[], str]) -> bool:
    """Whether a task comes to its result; either way that is reported."""
    try:
        tqdm.write(outcome(), file=sys.stderr)
    except BrokenProcessPool:
        raise
    except Exception as error:  # whatever it is: a night's other experiments must not suffer from it
        tqdm.write(f"{task.name}: failed: {_message(error)}", file=sys.stderr)
        return False
    return True


def _message(error: Exception) -> str:
    """What an error for users says; of any other, all that helps to find the defect."""
    return str(error) if isinstance(error, (ValueError, OSError)) else "".join(traceback.format_exception(error))


_Runs = Generator[tuple[Task, Callable[[], str]]]
"""Tasks, each with a function that gives the line to say of it, or raises what it failed of."""


def _in_turn(tasks: Sequence[Task], settings: ExecutionSettings) -> _Runs:
    """One after the other, in this process."""
    for task in tasks:
        yield task, partial(_run, task, settings)


def _side_by_side(tasks: Sequence[Task], settings: ExecutionSettings) -> _Runs:
    """In several processes, in the order in which they end. Closing the generator kills what still runs."""
    strangers = set(active_children())
    pool = ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        with _environment(OMP_NUM_THREADS=_threads_each(settings.jobs), TQDM_DISABLE="1"):
            futures = {pool.submit(_run, task, settings): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result
    except BaseException:
        for worker in set(active_children()) - strangers:
            worker.kill()  # not terminate: Lightning takes that as a request to end, and the next task would follow
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _threads_each(jobs: int) -> str:
    """Of one process, for torch: as the user has set it, else an even share of the cores."""
    return os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Environment variables for the processes that start meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl+C to all: the parent ends them
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Else the worker of a parent that was killed would hold its memory and the experiment's lock for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(task: Task, settings: ExecutionSettings) -> str:
    """Run one experiment in its own folder, unless another process has meanwhile; returns a line to say."""
    folder = settings.runs / task.key
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, task.name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # doubts about figures are stored with them
        if settings.results.find(task.experiment) is not None:
            _tidy(folder)
            return f"{task.name}: there already"
        started = time.perf_counter()
        outcome = task.experiment.run(folder, settings.sources, progress=settings.jobs == 1)
        seconds = time.perf_counter() - started
        file = settings.results.save(task.experiment, outcome, seconds=seconds)
        _tidy(folder)
        return f"{task.name}: {file} after {seconds:.0f} s"


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """While no other process works in the folder; says so if it has to wait for one."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        tqdm.write(f"{name}: another process is at it; waiting for its result", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _tidy(folder: Path) -> None:
    """Keep models, curves and grids; drop what only an unfinished run needs."""
    for leftover in [*folder.rglob("checkpoints"), *folder.glob("images-*")]:
        shutil.rmtree(leftover)
