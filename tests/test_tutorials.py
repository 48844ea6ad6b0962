"""The tutorials of the site, run as they stand, from top to bottom; only steps of training are fewer."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TUTORIALS = sorted((Path(__file__).parents[1] / "docs/tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FEWER = {"3000": "6", "3200": "8", "2000": "6", "1500": "6", "300": "6"}


def blocks(page):
    """Each block's language and text, with fewer steps on command lines."""
    for language, text in BLOCK.findall(page.read_text()):
        yield language, re.sub(r"--steps (\d+)", lambda steps: f"--steps {FEWER[steps[1]]}", text)


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


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(page, folder):
    if page.stem == "at-scale":
        pytest.importorskip("ray")
    found = list(blocks(page))
    assert found
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for language, text in found:
        command = [sys.executable, "-"] if language == "python" else ["bash", "-e"]
        done = subprocess.run(
            command, input=text, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
