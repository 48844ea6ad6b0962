"""The notebook, cell after cell; only its training is shorter, and packages are there already."""

import json
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_steps.ipynb"


def test_all_cells_run_in_their_order(tmp_path):
    notebook = json.loads(NOTEBOOK.read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells[0].startswith("%pip install")
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    script = "\n".join(["import matplotlib; matplotlib.use('agg')", *cells[1:]])
    script = script.replace("steps=300, validate_every=100", "steps=6, validate_every=3")
    done = subprocess.run([sys.executable, "-"], input=script, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bits per pixel" in done.stdout
    assert "shuffle-corrected" in done.stdout
