import numpy as np
import pytest
from PIL import Image

from depthq.data import open_images
from studies.dq_paper import SCALES, ExecutionSettings, ResultsStore, Row, Task
from studies.dq_paper.data_sets import DATA_SETS, DataSet


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep the tables that `datasets` makes of parquet files out of the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    datasets.disable_progress_bars()


@pytest.fixture
def task():
    """Makes a task on the bundled photos that trains in a second."""

    def task(seed: int = 0, kind: str = "training", **options) -> Task:
        named = {name: options.pop(name, None) for name in ("quantizer", "likelihood")}
        row = Row(name="tiny", kind=kind, options={"data": "bundled"} | options, paper={}, seeds=1, **named)
        return Task(f"test/tiny seed {seed}", row.experiment(SCALES["miniature"], seed))

    return task


@pytest.fixture
def store(tmp_path) -> ResultsStore:
    return ResultsStore(tmp_path / "results")


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(ResultsStore(tmp_path / "results"), tmp_path / "runs", sources={}, jobs=1)


@pytest.fixture(scope="session")
def patches(tmp_path_factory):
    """A folder of real photos' patches, 32 x 32: one to train on, 8 to test on."""
    folder = tmp_path_factory.mktemp("data") / "patches"
    images = open_images("bundled", "test")
    for number in range(9):
        file = folder / ("train" if number == 8 else "test") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(images[60 * number], 0, -1)).save(file)
    return folder


@pytest.fixture
def declare(monkeypatch):
    """Adds a data set to those that rows may name."""

    def declare(name: str, *declaration) -> None:
        monkeypatch.setitem(DATA_SETS, name, DataSet(*declaration))

    return declare
