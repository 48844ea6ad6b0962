"""Runs experiments that have no result yet, several at a time, each from where a killed run left it."""

import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from depthq.reproduce.declared import Item, Row
from depthq.reproduce.experiment import Experiment, content_of, key_of
from depthq.reproduce.results import ResultsStore
from depthq.reproduce.scales import Scale


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
class Workplace:
    """Where experiments run."""

    results: ResultsStore
    runs: Path
    """Work in progress, a folder for each experiment."""
    sources: Mapping[str, str]
    """Where data sets are, by name; those not named come from the hub."""
    jobs: int
    """Experiments at a time; they share the processor's cores evenly."""


def tasks_of(rows: Sequence[tuple[Item, Row]], scale: Scale, seeds: Sequence[int] | None) -> list[Task]:
    """The experiments of some rows, one per seed; rows decide how many seeds where none are given."""
    return [
        Task(f"{item.name}/{row.name} seed {seed}", row.experiment(scale, seed))
        for item, row in rows
        for seed in (seeds or range(row.seeds))
    ]


def distinct(tasks: Sequence[Task]) -> list[Task]:
    """The tasks without those whose experiment another one has already."""
    return list({task.key: task for task in reversed(tasks)}.values())[::-1]


def run_tasks(tasks: Sequence[Task], workplace: Workplace) -> int:
    """Run what has no result yet, and save each result when it is there.

    An experiment that fails is told of, and does not stop the others.

    Returns:
        How many failed.
    """
    missing = [task for task in distinct(tasks) if workplace.results.find(task.experiment) is None]
    failed = 0
    with _workers(workplace.jobs) as submit:
        futures = {submit(_run, task, workplace): task for task in missing}
        done = tqdm(as_completed(futures), total=len(futures), unit="experiment", disable=not futures)
        for future in done:
            try:
                tqdm.write(future.result(), file=sys.stderr)
            except (ValueError, OSError) as error:
                failed += 1
                tqdm.write(f"{futures[future].name}: failed: {error}", file=sys.stderr)
    return failed


@contextmanager
def _workers(jobs: int) -> Iterator:
    """A function to submit work to so many processes; or, for one job, to this one."""
    if jobs == 1:
        yield _at_once
        return
    # Read when a worker loads torch and tqdm.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    os.environ["TQDM_DISABLE"] = "1"
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_be_quiet)
    try:
        yield pool.submit
    finally:
        pool.shutdown(cancel_futures=True)


def _be_quiet() -> None:
    for trainer in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(trainer).setLevel(logging.WARNING)


def _at_once(function, *arguments) -> Future:
    future = Future()
    try:
        future.set_result(function(*arguments))
    except (ValueError, OSError) as error:
        future.set_exception(error)
    return future


def _run(task: Task, workplace: Workplace) -> str:
    """Run one experiment in its own folder, unless another process has meanwhile; returns a line to say."""
    folder = workplace.runs / task.key
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # doubts about figures are stored with them
        if workplace.results.find(task.experiment) is not None:
            return f"{task.name}: there already"
        started = time.perf_counter()
        outcome = task.experiment.run(folder, workplace.sources, progress=workplace.jobs == 1)
        seconds = time.perf_counter() - started
        file = workplace.results.save(task.experiment, outcome, seconds=seconds)
        _tidy(folder)
        return f"{task.name}: {file} after {seconds:.0f} s"


def _tidy(folder: Path) -> None:
    """Keep models, curves and grids; drop what only an unfinished run needs."""
    for leftover in [*folder.rglob("checkpoints"), *folder.glob("images-*")]:
        shutil.rmtree(leftover)
