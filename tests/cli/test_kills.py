"""Verbs killed while they write: what they were to write is absent, and the next try goes as if nothing was."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from depthq.cli import main

NUM_IMAGES = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos, their codes, and an archive of them."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "photos").mkdir()
    for index in range(NUM_IMAGES):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index:03}.png")
    photos = str(folder / "photos")
    assert main(["encode", "photos-small", "--data", photos, "--out", str(folder / "codes.parquet")]) == 0
    assert main(["compress", "photos-small", photos, "--out", str(folder / "photos.dq")]) == 0
    return folder


VERBS = {
    "encode": lambda folder: ["encode", "photos-small", "--data", str(folder / "photos")],
    "compress": lambda folder: ["compress", "photos-small", str(folder / "photos")],
    "decode": lambda folder: ["decode", "photos-small", str(folder / "codes.parquet")],
    "decompress": lambda folder: ["decompress", "photos-small", str(folder / "photos.dq")],
    "fit": lambda folder: ["fit", str(folder / "vectors.npy"), "--num-codebooks", "4", "--codebook-size", "16"],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("delay_s", [0.0, 0.1])
def test_nothing_half_written_is_left_under_its_name(folder, tmp_path, verb, delay_s):
    np.save(folder / "vectors.npy", np.random.default_rng(0).standard_normal((60_000, 16), dtype=np.float32))
    out = tmp_path / "out"
    command = [*VERBS[verb](folder), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "depthq", *command, "--quiet"], stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".depthq-*")):
        time.sleep(0.002)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if out.exists():
        assert _is_whole(verb, out)
        return
    assert main(command) == 0
    assert _is_whole(verb, out)


def _is_whole(verb, out):
    from depthq import DepthwiseQuantizer, read_codes

    if verb == "encode":
        return sum(len(batch.codes) for batch in read_codes(out)) == NUM_IMAGES
    if verb == "fit":
        return bool(DepthwiseQuantizer.from_pretrained(out)) and (out / "figures.json").is_file()
    if verb == "compress":
        again = out.parent / "again"
        assert main(["decompress", "photos-small", str(out), "--out", str(again)]) == 0
        return len(list(again.iterdir())) == NUM_IMAGES
    return len(list(out.iterdir())) == NUM_IMAGES
