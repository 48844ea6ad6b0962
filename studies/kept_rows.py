"""Rows of a study that takes minutes for each trained model: kept in a file as they come, and not made twice."""

import json
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from depthq.files import replacing


def by_name(parser: ArgumentParser, runs: Sequence[Path], *others: str) -> dict[str, Path]:
    """Runs by the names of their folders, which tell rows apart: an error where two rows would have one."""
    for name, count in Counter([*(run.name for run in runs), *others]).items():
        if count > 1:
            parser.error(f"rows must have different names, those of their runs' folders; got {name} twice; rename one")
    return {run.name: run for run in runs}


def kept_rows(file: Path, make: Mapping[str, Callable[[], dict]]) -> list[dict]:
    """The rows of a JSON file, those that it lacks made and added one by one.

    Args:
        file: A list of rows; need not exist.
        make: By the row's "run", what makes the rest of it. Rows of other runs stay as they are.
    """
    rows = json.loads(file.read_text()) if file.exists() else []
    there = {row["run"] for row in rows}
    for name in [name for name in make if name not in there]:
        start = time.perf_counter()
        row = {"run": name} | make[name]()
        rows.append(row | {"seconds": round(time.perf_counter() - start)})
        print(rows[-1], flush=True)
        with replacing(file) as stream:
            stream.write((json.dumps(rows, indent=1) + "\n").encode())
    return rows
