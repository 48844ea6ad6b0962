import multiprocessing
import os
import signal
from pathlib import Path

# One thread, here and in every process that a test starts: the last bits of sums depend on their number, and parallel
# workers share the cores. Before torch is loaded, which reads it once.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np
import pytest
import torch
from PIL import Image

from depthq.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background has it ignored
torch.set_num_threads(1)  # where a plugin has loaded torch already
multiprocessing.set_forkserver_preload(["depthq.training"])  # one server for all tests: what the largest child needs


@pytest.fixture(scope="session", autouse=True)
def a_cpu_without_bfloat16():
    """`--precision auto` is then float32 on every machine, and tests that do not name a precision run the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
        yield


@pytest.fixture(scope="session")
def write_photos():
    """Write small PNG files of coloured blocks, as unlike each other as photos; returns the folder."""

    def write_photos(folder: Path, count: int = 40, size: int = 16, channels: int = 3, seed: int = 0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, channels), dtype=np.uint8)
        for number, block in enumerate(blocks.repeat(size // 4, 1).repeat(size // 4, 2)):
            Image.fromarray(block.squeeze()).save(folder / f"{number:03d}.png")
        return folder

    return write_photos


@pytest.fixture(scope="session")
def photos(tmp_path_factory, write_photos) -> Path:
    """A folder of 40 colour images of 16 x 16: 36 to train on, 4 to test on."""
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, photos) -> Path:
    """A run that `depthq train --preset tiny` made in 10 steps: two levels, categorical likelihood."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    options = ["--preset", "tiny", "--codebook-size", "[8,16]", "--likelihood", "categorical", "--steps", "10"]
    assert main(["train", "--data", str(photos), "--out", str(run), *options]) == 0
    return run


@pytest.fixture
def set_num_threads():
    """`torch.set_num_threads`, undone at the end: sums depend on the number of threads, in all tests that follow."""
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)
