"""Run rows of the paper's tables and figures, keep their results, and write the pages that show them.

examples:
  python -m studies.dq_paper table3 --scale cpu --rows M5-K128 --dry-run
  python -m studies.dq_paper table3 table4 --scale cpu --rows "*-l2-*" --data cifar10=cifar10/ --jobs 2
  python -m studies.dq_paper table1 --scale gpu --rows cifar10-depthwise
  python -m studies.dq_paper --render

An item is one of table1, table2, table3, table4, decoupling, convergence, mnist, larger_images, progressive,
equal_bits, which_quantizer, length, capacity, rate_distortion, figure1, figure3, figure4 and figure5. Each finished row
is a file in --results and is never run twice; a killed run goes on where it was. --rows takes names, their first words,
or wildcards; --dry-run lists them, with the time they take here and their arithmetic (1 EFLOP is 2.8 hours at 100
TFLOP/s). docs/reproduction.md and docs/findings.md are what --render wrote of the results in this repository.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from depthq.cli import run_command
from studies.dq_paper import (
    ITEMS,
    SCALES,
    Effort,
    ExecutionSettings,
    Item,
    ResultsStore,
    Row,
    Task,
    choose_rows,
    distinct,
    expected_effort,
    find_item,
    run_tasks,
    tasks_of,
)
from studies.dq_paper.data_sets import DATA_SETS, WEIGHTS

STUDY = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    rows: list[tuple[Item, Row]]
    scale: str
    tasks: list[Task]
    execution: ExecutionSettings
    dry_run: bool
    render: Path | None


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    items = "\n".join(f"  {name:16} {find_item(name).title}" for name in ITEMS)
    parser.description = f"{parser.description}\nitems:\n{items}"
    parser.add_argument("item", type=str, nargs="*", metavar="ITEM", help=f"any of {', '.join(ITEMS)}")
    parser.add_argument("--scale", type=str, default="cpu", help=f"size of networks and runs: {', '.join(SCALES)}")
    parser.add_argument("--rows", type=str, nargs="+", default=[], help="which rows; by default all")
    parser.add_argument("--seeds", type=NonNegativeInt, nargs="+", help="which seeds; by default as many as rows say")
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="rows at a time; they share the cores")
    parser.add_argument("--data", type=str, nargs="+", default=[], help="NAME=SOURCE; by default from the hub")
    parser.add_argument("--results", type=Path, default=STUDY / "results", help="the folder of results")
    parser.add_argument("--runs", type=Path, default=Path("runs/dq_paper"), help="the folder of unfinished work")
    parser.add_argument("--dry_run", action="store_true", help="only list rows, and how long they will take")
    parser.add_argument("--render", action="store_true", help="write the pages and their pictures from all results")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where --render writes")
    options = parser.parse_args(arguments)
    _check(options)
    seeds = [int(seed) for seed in options.seeds or []]  # plain numbers: a run's config.yaml takes no other
    rows = choose_rows([find_item(name) for name in options.item], options.rows)
    return Settings(
        rows=rows,
        scale=options.scale,
        tasks=tasks_of(rows, SCALES[options.scale], seeds),
        execution=ExecutionSettings(ResultsStore(options.results), options.runs, _sources(options.data), options.jobs),
        dry_run=options.dry_run,
        render=options.docs if options.render else None,
    )


def _check(options: Namespace) -> None:
    """Raise ValueError for what does not go together."""
    if options.scale not in SCALES:
        raise ValueError(f"--scale must be one of {', '.join(SCALES)}; got {options.scale!r}")
    if not options.item and not options.render:
        raise ValueError(f"ITEM must be at least one of {', '.join(ITEMS)}; got none")
    if options.rows and not options.item:
        raise ValueError("--rows must come with an ITEM, whose rows they are; got none")
    if options.render and options.dry_run:
        raise ValueError("--render must come without --dry-run, which writes nothing; leave one of them out")


def run(settings: Settings) -> None:
    if settings.dry_run:
        _list(settings)
        return
    failed = run_tasks(settings.tasks, settings.execution)
    from studies.dq_paper.page import render, tables  # draws: not before there is something to draw

    if settings.rows:
        print(tables(settings.rows, settings.scale, settings.execution.results))
    if settings.render:
        for file in render(settings.execution.results, settings.render):
            print(file)
    if failed:
        raise ValueError(f"experiments must all succeed; got {failed} that failed, as told above; run them again")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code, as `depthq.cli.main` does."""
    command = sys.modules[__name__]
    return run_command(command, "python -m studies.dq_paper", sys.argv[1:] if arguments is None else arguments)


def _sources(pairs: list[str]) -> Mapping[str, str]:
    known, sources = [*DATA_SETS, *WEIGHTS], {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not equals or not source or name not in known:
            raise ValueError(f"--data must be NAME=SOURCE with NAME one of {', '.join(known)}; got {pair!r}")
        sources[name] = source
    return sources


def _list(settings: Settings) -> None:
    """Rows, what is there, and how long the rest will take."""
    tasks, results = distinct(settings.tasks), settings.execution.results
    missing = [task for task in tasks if results.find(task.experiment) is None]
    effort = expected_effort(missing)
    for task in tasks:
        if task not in missing:
            status = "there already"
        elif task.name in effort:
            status = _in_words([effort[task.name]])
        else:
            status = "not timed"
        print(f"{task.key}  {task.name:48}  {status}")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(
        f"{len(tasks)} experiments, {len(tasks) - len(missing)} there already; {_in_words(list(effort.values()))} of "
        f"training one by one, as fast as on {where}"
    )


def _in_words(efforts: Sequence[Effort]) -> str:
    seconds, operations = (sum(getattr(effort, name) for effort in efforts) for name in ("seconds", "operations"))
    return f"about {_duration(seconds)}, {operations / 1e18:.3g} EFLOP"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
