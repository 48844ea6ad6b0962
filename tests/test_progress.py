"""Progress is a bar on a terminal, whole lines elsewhere, and nothing if quiet."""

import io
import sys

import pytest

from depthq import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def always(monkeypatch):
    """As if every step took long."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(progress, "_SECONDS_BEFORE_BAR", 0)


@pytest.mark.usefixtures("always")
def test_a_file_gets_whole_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(progress.progress(range(3), unit="image", what="reading")) == [0, 1, 2]
    lines = sys.stderr.getvalue().splitlines()
    assert "\r" not in sys.stderr.getvalue()
    assert len(lines) >= 3
    assert lines[-1].startswith("reading: 100% 3/3 [")


@pytest.mark.usefixtures("always")
def test_a_terminal_gets_a_bar_that_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress.progress(range(3), unit="image"))
    assert "image/s" in sys.stderr.getvalue()
    assert sys.stderr.getvalue().rpartition("\r")[2] == ""
    assert sys.stderr.getvalue().split("\r")[-2].strip() == ""


@pytest.mark.usefixtures("always")
def test_quiet_shows_nothing(monkeypatch):
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.quiet():
            list(progress.progress(range(3), unit="image"))
        assert stream.getvalue() == ""
    list(progress.progress(range(3), unit="image"))
    assert sys.stderr.getvalue() != ""


def test_quick_work_shows_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    list(progress.progress(range(3), unit="image"))
    assert sys.stderr.getvalue() == ""
