"""Rate and distortion of image codecs, against Pillow called by hand."""

import io
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from depthq.data import DataError
from studies.dq_paper.codecs import Codec, _mosaic, _tiles


@pytest.fixture
def measure(patches, declare, tmp_path):
    """The figures of a codec on the eight test patches."""
    declare("patches", "", (3, 32, 32), 1, 8)

    def measure(codec: str, quality: int, arrangement: str) -> dict:
        experiment = Codec(data="patches", codec=codec, quality=quality, arrangement=arrangement)
        outcome = experiment.run(tmp_path, {"patches": str(patches)}, progress=False)
        assert (outcome.codes, outcome.curve, outcome.picture) == (None, {}, None)
        return outcome.figures

    return measure


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 7, 100, 101])
def test_tiles_undo_a_mosaic(count, channels):
    images = torch.randint(256, (count, channels, 4, 4), dtype=torch.uint8)
    mosaic = _mosaic(images)
    assert mosaic.shape == (channels, 4 * -(-count // 100), 4 * min(count, 100))
    assert torch.equal(_tiles(mosaic, images), images)


def test_mosaic_has_rows_of_a_hundred_and_black_where_there_is_none():
    images = torch.arange(1, 102, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    mosaic = _mosaic(images)[0]
    assert mosaic[0, ::2].tolist() == list(range(1, 101))
    assert mosaic[2, ::2].tolist() == [101] + 99 * [0]


@pytest.mark.parametrize("codec", ["JPEG", "WEBP"])
def test_figures_are_those_of_pillow(codec, measure, patches):
    bits, psnr_db = 0, []
    for file in sorted((patches / "test").iterdir()):
        with Image.open(file) as picture:
            original = np.asarray(picture, np.float64)
            picture.save(stream := io.BytesIO(), codec, quality=40)
        with Image.open(stream) as picture:
            restored = np.asarray(picture.convert("RGB"), np.float64)
        bits += 8 * len(stream.getvalue())
        psnr_db.append(10 * np.log10(255**2 / np.mean((restored - original) ** 2)))
    figures = measure(codec, 40, "files")
    assert figures["images"] == 8
    assert figures["bits_per_pixel"] == bits / (8 * 32 * 32)
    assert figures["psnr_db"] == pytest.approx(np.mean(psnr_db), rel=1e-5)


@pytest.mark.parametrize("arrangement", ["files", "mosaic"])
@pytest.mark.parametrize("codec", ["JPEG", "WEBP", "JXL"])
def test_higher_quality_costs_more_and_looks_better(codec, arrangement, measure):
    if codec == "JXL":
        pytest.importorskip("pillow_jxl")
    low, middle, high = (measure(codec, quality, arrangement) for quality in (5, 60, 95))
    assert low["bits_per_pixel"] < middle["bits_per_pixel"] < high["bits_per_pixel"]
    assert low["psnr_db"] < middle["psnr_db"] < high["psnr_db"]
    assert high["psnr_db"] > 28


@pytest.mark.parametrize("codec", ["JPEG", "WEBP"])
def test_mosaic_saves_the_headers(codec, measure):
    files, mosaic = (measure(codec, 60, arrangement) for arrangement in ("files", "mosaic"))
    assert mosaic["bits_per_pixel"] < files["bits_per_pixel"]
    assert mosaic["psnr_db"] == pytest.approx(files["psnr_db"], abs=1)


def test_missing_plugin_is_told_with_the_remedy(measure, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    message = "codec 'JXL' must have pillow-jxl-plugin to run; it is not installed; pip install 'depthq[studies]'"
    with pytest.raises(ValueError, match=re.escape(message)):
        measure("JXL", 60, "files")


def test_data_set_is_checked_first(measure, declare):
    declare("patches", "", (3, 32, 32), 1, 9)
    with pytest.raises(DataError, match="data set patches must have 9 test images"):
        measure("JPEG", 60, "files")
