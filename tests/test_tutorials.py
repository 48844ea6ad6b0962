"""The tutorials of the site, run as they stand, from top to bottom; only networks are tiny, and their steps fewer."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthq.cli import main

TUTORIALS = sorted((Path(__file__).parents[1] / "docs/tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FEWER = {"3000": "6", "3200": "8", "2000": "6", "1500": "6", "300": "6"}


def blocks(page):
    """Each block's language and text, with fewer steps and tiny networks on command lines."""
    for language, text in BLOCK.findall(page.read_text()):
        text = re.sub(r"--steps (\d+)", lambda steps: f"--steps {FEWER[steps[1]]}", text)
        yield language, text.replace("depthq train --data", "depthq train --preset tiny --data")


@pytest.fixture
def folder(tmp_path):
    """A folder with photos/ in it, as every tutorial supposes."""
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(24):
        height, width = (64, 48) if number % 2 else (40, 56)
        rows = np.linspace(0, 200, height)[:, None, None] + random.integers(0, 50, (height, width, 3))
        Image.fromarray(rows.astype(np.uint8)).save(tmp_path / "photos" / f"{number:02}.png")
    return tmp_path


@pytest.mark.filterwarnings("default")  # as users have them
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(page, folder, monkeypatch):
    """In this process: each command's start would take longer than its work."""
    if page.stem == "at-scale":
        pytest.importorskip("ray")
    monkeypatch.chdir(folder)
    found = list(blocks(page))
    assert found
    for language, text in found:
        if language == "python":
            exec(compile(text, f"{page.name}", "exec"), {"__name__": "__main__"})
            continue
        for line in text.splitlines():
            verb, *arguments = shlex.split(line)
            assert verb == "depthq"
            assert main(arguments) == 0, line
