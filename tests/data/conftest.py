from io import BytesIO

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep the tables that `datasets` makes of parquet files out of the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def reachable_hub(monkeypatch):
    """What the tests load from the hub is a stand-in; it is not to be looked for."""

    class Connection:
        def close(self):
            pass

    monkeypatch.setattr("depthq.data.hub.socket.create_connection", lambda *_: Connection())


@pytest.fixture
def encode():
    """Encode an array (H, W) or (H, W, 3), or a picture, as a file's bytes."""

    def encode(pixels: np.ndarray | Image.Image, format: str = "PNG", **options) -> bytes:
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        buffer = BytesIO()
        picture.save(buffer, format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def write_images(encode):
    """Write PNG files below a folder, in each pixel the number of the file; returns the folder."""

    def write_images(folder, names, size=(8, 8), start=0):
        for number, name in enumerate(names, start):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(np.full((*size, 3), number, np.uint8)))
        return folder

    return write_images


@pytest.fixture
def write_parquet(encode):
    """Write a parquet file of images whose pixels hold the given values, in a column of the given name."""

    def write_parquet(path, values, column="img"):
        import datasets

        cells = [{"bytes": encode(np.full((8, 8, 3), value, np.uint8)), "path": None} for value in values]
        features = datasets.Features({"label": datasets.Value("int64"), column: datasets.Image()})
        path.parent.mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_dict({"label": list(values), column: cells}, features=features)
        table.to_parquet(str(path))
        return path

    return write_parquet
