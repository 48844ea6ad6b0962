"""The arrows of ARCHITECTURE.md: who may import whom, and what `import depthq` must not load."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import depthq
from depthq.cli.main import VERBS
from depthq.extras import PACKAGES

SOURCE = Path(depthq.__file__).parent

ARCHITECTURE = Path(__file__).parents[1] / "ARCHITECTURE.md"


def arrows() -> dict[str, set[str]]:
    """Each room, and the rooms that it may import, as the table in ARCHITECTURE.md has them."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\w, ]*)\|$", ARCHITECTURE.read_text(), re.MULTILINE)
    return {room: set(filter(None, others.strip().split(", "))) for room, others in rows}


TABLE = arrows()
COMMON = TABLE.pop("every_room")
ARROWS = TABLE | {"__init__": set(TABLE), "__main__": {"cli"}}


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
        for other in imported_rooms(file) - ARROWS[room] - COMMON - {room}
    }
    assert not forbidden


def test_arrows_have_no_circle():
    def reaches(room, goal):
        return any(other == goal or reaches(other, goal) for other in ARROWS[room])

    assert not [room for room in ARROWS if reaches(room, room)]


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after running `code`."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


EXTRAS = {package for packages in PACKAGES.values() for package in packages} - {"tqdm", "yaml"}  # huggingface_hub's too
HEAVY = EXTRAS | {"triton", "scipy", "httpx2"}  # httpx2: what the hub's networking loads


def test_import_of_the_package_alone_loads_nothing():
    assert not loaded_by("import depthq") & (HEAVY | {"torch", "numpy", "huggingface_hub", "jsonargparse"})


def test_names_of_the_package_load_nothing_that_is_heavy_or_optional():
    """But two, which are for images and files, and want what these want."""
    everything = "import depthq; [getattr(depthq, name) for name in set(depthq.__all__) - {'read_codes', 'train'}]"
    loaded = loaded_by(everything)
    assert "torch" in loaded
    # PyTorch brings jinja2, and fills a name with tensorboard's that holds nothing of it.
    assert not loaded & HEAVY - {"jinja2"}


def test_rooms_of_the_core_are_there_after_a_bare_import():
    code = (
        "import depthq\n"
        "print(depthq.analysis.CodeCounts.__name__, depthq.features.recommend_axis.__name__,"
        " depthq.models.PRESETS['tiny'].num_codebooks, depthq.quantizers.Quantizer.__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "CodeCounts recommend_axis 2 Quantizer\n"


@pytest.mark.parametrize("argument", ["--help", "--version", "trian"])
def test_what_needs_no_verb_needs_neither_torch_nor_a_parser(argument):
    loaded = loaded_by(f"from depthq.cli import main; main([{argument!r}])")
    assert not loaded & (HEAVY | {"torch", "numpy", "jsonargparse", "huggingface_hub"})


def test_help_of_a_verb_loads_nothing_that_only_its_run_needs():
    helps = "; ".join(f"main([{verb!r}, '--help'])" for verb in VERBS)
    loaded = loaded_by(f"from depthq.cli import main; {helps}")
    assert not loaded & HEAVY - {"jsonargparse", "jinja2"}


def test_verbs_that_only_read_a_run_do_without_lightning(trained_run, tmp_path):
    run, codes = str(trained_run), str(tmp_path / "codes.parquet")
    code = (
        "from depthq.cli import main\n"
        f"assert main(['info', {run!r}]) == 0\n"
        f"assert main(['encode', {run!r}, '--out', {codes!r}]) == 0\n"
        f"assert main(['decode', {run!r}, {codes!r}, '--out', {codes + '-images'!r}]) == 0\n"
    )
    assert not loaded_by(code) & {"lightning", "torchmetrics", "matplotlib"}
