"""Remedies that messages name are tried here: what they say to do works."""

import errno

import numpy as np
import pytest
import torch

import depthq
from depthq.analysis import CodeCounts
from depthq.cli import main


def test_numpy_images_are_told_from_tensors():
    model = depthq.DQAE(depthq.DQAEConfig(num_codebooks=2, codebook_size=8, channels=(4, 8)))
    images = np.zeros((1, 3, 8, 8), np.uint8)
    with pytest.raises(
        ValueError, match=r"images must be a torch.Tensor; got ndarray; convert it with torch.from_numpy"
    ):
        model.encode(images)
    assert model.encode(torch.from_numpy(images)).levels[0].shape == (1, 2, 2, 2)


def test_masked_codes_are_counted_as_the_message_says():
    quantizer = depthq.DepthwiseQuantizer(8, 2, 16).eval()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    codes = quantizer.encode(torch.randn(2, 8, 3), mask=mask)
    counts = CodeCounts(((16, 16),))
    with pytest.raises(ValueError, match=r"count valid positions alone: codes.movedim\(1, -1\)\[mask\]"):
        counts.update(codes)
    assert counts.update(codes.movedim(1, -1)[mask]).marginal().sum() == 2 * 3


def test_a_codebook_of_one_code_goes_through_the_verbs(tmp_path, photos_folder, capsys):
    run = str(tmp_path / "run")
    small = ["--preset", "tiny", "--image-size", "16", "--codebook-size", "1", "--steps", "2"]
    assert main(["train", "--data", str(photos_folder), "--out", run, *small]) == 0
    for verb in (
        ["info"],
        ["evaluate"],
        ["analyze", "--out", str(tmp_path / "a")],
        ["prior", "--steps", "1"],
        ["report"],
    ):
        assert main([verb[0], run, *verb[1:]]) == 0, verb
    out = capsys.readouterr().out
    assert "0 bits per image" in out


def test_a_full_disk_names_the_file_and_the_remedy(tmp_path, photos_folder, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("depthq.files.os.fsync", full)
    command = [
        "encode",
        "mnist-tiny",
        "--data",
        str(photos_folder),
        "--crop",
        "16",
        "--out",
        str(tmp_path / "c.parquet"),
    ]
    assert main(["encode", "photos-small", *command[2:]]) == 1
    err = capsys.readouterr().err
    assert f"No space left on device: '{tmp_path / 'c.parquet'}'; make room on that disk" in err


def test_a_cache_that_cannot_be_written_is_the_cause_named(tmp_path, capsys, monkeypatch):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "file" / "cache"))
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "images.parquet")
    assert (
        main(["encode", "photos-small", "--data", str(tmp_path / "images.parquet"), "--out", str(tmp_path / "c")]) == 1
    )
    assert "the cache of data sets must be writable" in capsys.readouterr().err


def test_a_misspelt_source_is_answered_at_once(tmp_path, capsys, monkeypatch):
    def unreachable(*_):
        raise OSError("no route")

    monkeypatch.setattr("depthq.data.hub.socket.create_connection", unreachable)
    assert main(["train", "--data", "bunlled", "--out", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert "got bunlled, which is not here, and the hub cannot be reached (no route); did you mean bundled?" in err


@pytest.fixture
def photos_folder(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder
