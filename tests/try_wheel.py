"""Install a wheel in a bare environment, and run one layer and one verb: python tests/try_wheel.py WHEEL."""

import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

LAYER = """
import torch, depthq
out = depthq.DepthwiseQuantizer(dim=64, num_codebooks=4, codebook_size=16)(torch.randn(2, 64, 9))
assert out.codes.shape == (2, 4, 9)
print(depthq.__version__, "layer")
"""


def check_readme(wheel: Path) -> None:
    """All that an index shows of it must hold there."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links, "the long description is missing"
    assert all(link.startswith("https://") for link in links), links


def main(wheel: Path) -> None:
    check_readme(wheel)
    constraints = Path(__file__).parents[1] / "constraints.txt"
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", constraints]
        subprocess.run([*pip, wheel], check=True)
        subprocess.run([python, "-c", LAYER], check=True, cwd=folder)
        subprocess.run([*pip, f"{wheel}[train]"], check=True)
        subprocess.run([python, "-m", "depthq", "info", "photos-small"], check=True, cwd=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
