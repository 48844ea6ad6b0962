"""With the core's packages alone: quantizers, a DQ-AE from config to codes and back, and analysis."""

import ast
import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import depthq

SOURCE = Path(depthq.__file__).parent
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
CORE_ROOMS = ("units", "files", "ops", "codes", "pixels", "quantizers", "likelihoods", "models", "analysis", "features")

BLOCK = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""

SCRIPT = """
import sys
import torch
import depthq

x = torch.randn(4, 16, 8, 8)
quantizer = depthq.DepthwiseQuantizer(dim=16, num_codebooks=2, codebook_size=8)
quantizer.fit(x, steps=3, batch_size=4)
for kind in (depthq.SharedQuantizer, depthq.ResidualQuantizer):
    learning = kind(dim=16, num_codebooks=2, codebook_size=8)
    assert learning(x).codes.shape == (4, 2, 8, 8)
print(quantizer.health())

config = depthq.DQAEConfig(num_codebooks=2, codebook_size=(8, 8), channels=(8, 16), likelihood="categorical")
model = depthq.DQAE(config)
images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(3):
    out = model(images)
    nll = -model.likelihood.log_prob(out.parameters, images).mean()
    (nll + sum(level.loss for level in out.levels)).backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained(sys.argv[1])

loaded = depthq.DQAE.from_pretrained(sys.argv[1])
assert loaded.fingerprint() == model.fingerprint()
codes = loaded.encode(images)
assert loaded.decode(codes).shape == images.shape
counts = depthq.analysis.CodeCounts(codes.codebook_sizes).update(codes)
print(depthq.analysis.code_entropy(counts).perplexity)
print(depthq.analysis.pairwise_mutual_information(counts).mean_pairwise_nats)
print(depthq.analysis.summarize_codes(counts).levels)
blocks = [depthq.analysis.CodeCounts(codes.codebook_sizes).update(loaded.encode(half)) for half in images.split(2)]
entropy = lambda counts: depthq.analysis.code_entropy(counts).entropy_nats[0]
print(depthq.analysis.block_interval(blocks, entropy))
print(depthq.features.recommend_axis(torch.randn(20, 16, 4)))
try:
    import depthq.codes.file
except ModuleNotFoundError as error:
    print(error)
"""

USES = """
import sys
import torch
import depthq.data
from depthq.analysis import CodeCounts, summarize_codes
from depthq.report import AnalyzedCodes, draw_plots
from depthq.report.plots import plot_position_entropy

def draw():
    counts = CodeCounts([2, 2]).update(torch.tensor([[0, 1], [1, 0]]))
    draw_plots([AnalyzedCodes("run", counts, summarize_codes(counts))])

folder, parquet = sys.argv[1:]
for use in (
    lambda: depthq.data.open_images("bundled", "test"),
    lambda: depthq.data.open_images(folder, "test"),
    lambda: depthq.data.open_images("name-on-the-hub", "test"),
    lambda: depthq.data.open_images(parquet, "test"),
    lambda: depthq.data.count_images(parquet),
    draw,
    lambda: plot_position_entropy(torch.zeros(1, 2, 2)),
):
    try:
        use()
    except ModuleNotFoundError as error:
        print(error)
"""


def with_requirements(names: set[str]) -> set[str]:
    """Distributions, and all that they ask for here without an extra."""
    found, new = set(), {name.lower().replace("_", "-") for name in names}
    while new:
        found |= new
        asked = (Requirement(line) for name in new for line in _requires(name))
        new = {each.name.lower().replace("_", "-") for each in asked if _is_needed(each)} - found
    return found


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:  # asked for on other machines
        return []


def _is_needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


@pytest.fixture(scope="module")
def blocked() -> list[str]:
    """Packages of this environment that an installation of the core would not have."""
    core = with_requirements({Requirement(line).name for line in PROJECT["dependencies"]})
    owners = {
        package: {name.lower().replace("_", "-") for name in names}
        for package, names in packages_distributions().items()
    }
    return [package for package, names in owners.items() if not names & (core | {"depthq", "setuptools"})]


def test_core_alone_quantizes_models_and_analyzes(blocked, tmp_path):
    assert {"lightning", "datasets", "matplotlib", "PIL", "pyarrow", "scipy", "jsonargparse"} <= set(blocked)
    script = f"BLOCKED = set({json.dumps(blocked)})\n{BLOCK}\n{SCRIPT}"
    command = [sys.executable, "-c", script, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("pyarrow must be installed for this; got none; pip install 'depthq[train]'\n")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"README.md", "config.json", "model.safetensors"}


def test_functions_that_need_an_extra_name_it(blocked, write_photos, tmp_path):
    script = f"BLOCKED = set({json.dumps(blocked)})\n{BLOCK}\n{USES}"
    parquet = tmp_path / "photos.parquet"
    parquet.touch()
    command = [sys.executable, "-c", script, str(write_photos(tmp_path / "photos", count=1)), str(parquet)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = "{} must be installed for this; got none; pip install 'depthq[{}]'".format
    reading = [said(package, "train") for package in ("skimage", "PIL", "datasets", "pyarrow", "pyarrow")]
    assert done.stdout.splitlines() == [*reading, *[said("matplotlib", "report")] * 2]


@pytest.mark.parametrize("room", CORE_ROOMS)
def test_room_of_the_core_imports_other_packages_only_where_it_says_so(room):
    """At its top; but for what PyTorch and the hub bring by themselves, which may change."""
    allowed = {"depthq", "torch", "numpy", "safetensors", "huggingface_hub", *sys.stdlib_module_names}
    files = [SOURCE / f"{room}.py", *(SOURCE / room).rglob("*.py")]
    used_by_a_kernel = {"nearest_code_triton.py"}  # loaded only where there is Triton
    for file in files:
        if file.exists() and file.name not in used_by_a_kernel:
            assert imported_at_the_top(file) <= allowed, file


def imported_at_the_top(file: Path) -> set[str]:
    nodes = ast.parse(file.read_text()).body
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}
