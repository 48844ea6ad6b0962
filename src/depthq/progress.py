"""How far a pass has come, on stderr: a bar on a terminal, elsewhere a line every ten seconds, nothing if quiet."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from depthq.extras import explain_missing

with explain_missing():
    from tqdm import tqdm

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10
_SECONDS_BEFORE_BAR = 2
_is_quiet = False


@contextmanager
def quiet(is_quiet: bool = True) -> Iterator[None]:
    """Within the block, no progress is shown."""
    global _is_quiet
    before, _is_quiet = _is_quiet, is_quiet
    try:
        yield
    finally:
        _is_quiet = before


def note(text: str) -> None:
    """A line on stderr that belongs to the progress, and is silent where that is."""
    if not _is_quiet:
        tqdm.write(text, file=sys.stderr)


def progress(items: Iterable[Item], *, unit: str, what: str = "", total: int | None = None) -> "Iterable[Item]":
    """`items` as they are, with their progress on stderr once they take longer than two seconds."""
    return progress_bar(items, **of_a_pass(unit, what), total=total)


def of_a_pass(unit: str, what: str = "") -> dict[str, Any]:
    """Options of a bar that comes after two seconds and leaves nothing behind."""
    return {"unit": f" {unit}", "desc": what or None, "delay": _SECONDS_BEFORE_BAR, "leave": False}


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A bar to update, or `items` with one; options are those of tqdm, and `disable` holds in any case."""
    options["disable"] = options.get("disable", False) or _is_quiet
    if sys.stderr.isatty():
        return tqdm(items, **options)
    return _Lines(items, **options)


class _Lines(tqdm):
    """What a log file can hold: whole lines, few of them, and at the end one of a bar that stays."""

    def __init__(self, items: Iterable[Any] | None = None, **options: Any):
        if "bar_format" in options:
            options["bar_format"] = options["bar_format"].replace("{bar:20} ", "")
        else:
            options["ncols"] = 0
        options |= {"mininterval": SECONDS_BETWEEN_LINES, "delay": SECONDS_BETWEEN_LINES, "miniters": 1}
        super().__init__(items, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        self.fp.write((str(self) if msg is None else msg) + "\n")
        self.fp.flush()
        return True

    def close(self) -> None:
        if self.disable:
            return
        if self.leave:
            self.display()
        self.disable = True
        self._decr_instances(self)  # pyright: ignore[reportAttributeAccessIssue]
