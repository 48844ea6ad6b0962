"""The arrows of ARCHITECTURE.md: who may import whom, and what `import depthq` must not load."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import depthq

SOURCE = Path(depthq.__file__).parent

ARCHITECTURE = Path(__file__).parents[1] / "ARCHITECTURE.md"


def arrows() -> dict[str, set[str]]:
    """Each room, and the rooms that it may import, as the table in ARCHITECTURE.md has them."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\w, ]*)\|$", ARCHITECTURE.read_text(), re.MULTILINE)
    return {room: set(filter(None, others.strip().split(", "))) for room, others in rows}


ARROWS = arrows() | {"__init__": set(arrows()), "__main__": {"cli"}}


def room_of(file: Path) -> str:
    first = file.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported_rooms(file: Path) -> set[str]:
    """The rooms that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} must import by full names"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = (name.split(".") for name in names if name.startswith("depthq."))
    return {path[1] for path in paths} & {*ARROWS, *map(room_of, SOURCE.rglob("*.py"))}


@pytest.mark.parametrize("room", sorted({room_of(file) for file in SOURCE.rglob("*.py")}))
def test_room_imports_only_what_its_arrows_allow(room):
    files = [file for file in SOURCE.rglob("*.py") if room_of(file) == room]
    forbidden = {
        f"{file.relative_to(SOURCE)} -> {other}"
        for file in files
        for other in imported_rooms(file) - ARROWS[room] - {room}
    }
    assert not forbidden


def test_arrows_have_no_circle():
    def reaches(room, goal):
        return any(other == goal or reaches(other, goal) for other in ARROWS[room])

    assert not [room for room in ARROWS if reaches(room, room)]


def test_import_of_the_package_loads_nothing_that_is_heavy_or_optional():
    heavy = {"triton", "lightning", "datasets", "matplotlib", "torchvision", "torchmetrics", "skimage", "jsonargparse"}
    script = f"import sys, depthq; print(*sorted({heavy!r} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


def test_the_package_alone_brings_analysis_and_features():
    code = "import depthq; print(depthq.analysis.CodeCounts.__name__, depthq.features.recommend_axis.__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "CodeCounts recommend_axis\n"


def test_verbs_that_only_read_a_run_do_without_lightning():
    code = (
        "import sys, depthq.cli.info, depthq.cli.encode, depthq.cli.decode, depthq.cli.reconstruct\n"
        "print('lightning' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
