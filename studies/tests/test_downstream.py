"""Classes told from codes: of images whose class is their colour, codes tell it, and codes of noise do not."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from depthq.cli import main as depthq
from studies import downstream


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """256 images, red, green or blue as their label says, in a parquet file for training and one for testing."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 256), ("test", 60)):
        images = []
        for number in range(count):
            colour = tuple(200 if channel == number % 3 else 20 + number % 30 for channel in range(3))
            Image.new("RGB", (16, 16), colour).save(folder / "one.png")
            images.append({"bytes": (folder / "one.png").read_bytes(), "path": None})
        table = pa.table({"image": images, "label": [number % 3 for number in range(count)]})
        pq.write_table(table, folder / f"{split}.parquet")
    (folder / "one.png").unlink()
    return folder


def test_classes_are_told_from_codes_and_from_pixels_and_rows_are_not_made_again(data, tmp_path, monkeypatch, capsys):
    run, out = tmp_path / "run", tmp_path / "rows.json"
    assert depthq(["train", "--preset", "tiny", "--data", str(data), "--steps", "60", "--out", str(run)]) == 0
    options = ["downstream", str(run), "--data", str(data), "--epochs", "8", "--out", str(out)]
    monkeypatch.setattr("sys.argv", options)
    downstream.main()
    pixels, codes = json.loads(out.read_text())
    assert (pixels["run"], codes["run"], codes["quantizer"]) == ("pixels", "run", "depthwise")
    assert min(pixels["small"], codes["linear"], codes["small"]) > 0.9
    written = out.stat().st_mtime_ns
    downstream.main()
    assert out.stat().st_mtime_ns == written


@pytest.mark.parametrize(("runs", "twice"), [(["a/run", "b/run"], "run"), (["runs/pixels"], "pixels")])
def test_runs_of_one_name_are_refused(monkeypatch, capsys, runs, twice):
    monkeypatch.setattr("sys.argv", ["downstream", *runs, "--data", "cifar10", "--out", "rows.json"])
    with pytest.raises(SystemExit):
        downstream.main()
    assert f"got {twice} twice; rename one" in capsys.readouterr().err


def test_runs_of_one_quantizer_are_one_line():
    rows = [
        {"run": "pixels", "linear": 0.4, "small": 0.6},
        {"run": "a", "quantizer": "shared", "distance": "euclidean", "linear": 0.3, "small": 0.5},
        {"run": "b", "quantizer": "shared", "distance": "euclidean", "linear": 0.5, "small": 0.7},
        {"run": "c", "quantizer": "depthwise", "distance": "cosine", "linear": 0.2, "small": 0.9},
    ]
    assert downstream.table(rows).splitlines()[2:] == [
        "| depthwise, cosine | 20.0 % | 90.0 % |",
        "| pixels | 40.0 % | 60.0 % |",
        "| shared | 40.0 % ± 14.1 (2) | 60.0 % ± 14.1 (2) |",
    ]


def test_the_page_has_the_table_of_the_rows_that_are_kept():
    rows = json.loads((Path(downstream.__file__).parent / "downstream.json").read_text())
    page = Path(downstream.__file__).parents[1] / "docs/which-quantizer.md"
    assert downstream.table(rows) in page.read_text()


def test_codes_of_noise_tell_nothing():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 8, (600, 2, 4, 4), generator=generator)
    labels = torch.randint(0, 3, (600,), generator=generator)
    told = downstream.measure((codes[:400], labels[:400]), (codes[400:], labels[400:]), 8, epochs=3)
    assert max(told.values()) < 0.5
