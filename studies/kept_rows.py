"""Rows of a study that takes minutes for each trained model: kept in a file as they come, and not made twice."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from depthq.files import replacing


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
