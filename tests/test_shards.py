"""`depthq encode --workers` and `--ray`: folders of shards that hold what one process would have written."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthq import read_codes
from depthq.cli import main
from depthq.codes.file import read_header
from depthq.locking import only_writer

pytest.importorskip("ray")

NUM_IMAGES, SHARD_SIZE = 500, 64
NUM_SHARDS = 8
PATIENCE_S = 300
"""For what takes ten seconds on a machine that has nothing else to do."""


def rows(path):
    """Id, label, size and codes of each image."""
    found = []
    for batch in read_codes(path):
        for place, number in enumerate(batch.ids):
            codes = tuple(tuple(level[place].flatten().tolist()) for level in batch.codes.levels)
            found.append((number, None if batch.labels is None else batch.labels[place], batch.sizes[place], codes))
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Images of two sizes with labels in a parquet file, one of them bad."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("source")
    random, images = np.random.default_rng(0), []
    for number in range(NUM_IMAGES):
        pixels = random.integers(0, 256, (48 if number % 100 == 7 else 32, 32, 3), dtype=np.uint8)
        file = folder / "image.png"
        Image.fromarray(pixels).save(file)
        images.append({"bytes": file.read_bytes() if number != 130 else b"no image", "path": None})
    pq.write_table(
        pa.table({"image": images, "label": [number % 10 for number in range(NUM_IMAGES)]}), folder / "a.parquet"
    )
    return folder / "a.parquet"


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    """The rows that one process writes."""
    file = tmp_path_factory.mktemp("file") / "codes.parquet"
    command = ["encode", "photos-small", "--data", str(source), "--on-bad-image", "skip", "--out", str(file)]
    assert run([sys.executable, "-m", "depthq", *command]).returncode == 0
    return rows(file)


def encode(source, out, *options):
    """The command that encodes all into shards."""
    return [
        *(sys.executable, "-m", "depthq", "encode", "photos-small", "--data", str(source), "--on-bad-image", "skip"),
        *("--shard-size", str(SHARD_SIZE), "--out", str(out), *options),
    ]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, **options)


def wait_for(condition, process):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def num_done(out):
    file = out / "done.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_killed_runs_are_gone_on_with_and_hold_what_one_process_writes(source, expected, tmp_path):
    out = tmp_path / "codes"
    with subprocess.Popen(encode(source, out, "--workers", "2"), stderr=subprocess.PIPE) as process:
        wait_for(lambda: num_done(out) >= 2, process)
        process.send_signal(signal.SIGKILL)
    before = num_done(out)
    assert 2 <= before < NUM_SHARDS
    with pytest.raises(ValueError, match=r"must hold all of its 8 shards; \d+ are missing, such as codes-000"):
        read_codes(out)
    stamps = {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
    again = run(encode(source, out, "--workers", "1"))
    assert again.returncode == 0, again.stderr
    assert f"{before} of 8 shards are there already" in again.stderr
    assert "codes of 499 of 500 images" in again.stdout
    assert "1 bad ones skipped: row 130 of" in again.stdout
    assert sum(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items()) >= before  # not written again
    assert rows(out) == expected
    assert read_header(out).num_images == len(expected)
    assert not list(out.glob(".depthq-*"))
    # Whoever reads codes takes the folder.
    assert main(["decode", "photos-small", str(out), "--out", str(tmp_path / "decoded")]) == 0
    assert len(list((tmp_path / "decoded").iterdir())) == len(expected)


CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster()
for _ in range(2):
    cluster.add_node(num_cpus=1, include_dashboard=False)
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def cluster_of(**environment):
    """The address of a Ray cluster of two nodes with a core each, on this machine."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(command, text=True, env=os.environ | environment, **pipes) as process:
        address = next(line.split()[1] for line in process.stdout if line.startswith("address"))
        yield address
        process.stdin.close()


@pytest.fixture(scope="module")
def cluster():
    with cluster_of() as address:
        yield address


def workers():
    """The processes of actors that encode."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if title.startswith(b"ray::") and b"MapBatches(_Worker)" in title:
            found.append(int(process.name))
    return found


def test_what_workers_do_not_find_is_told_in_one_line(source, tmp_path, cluster):
    script = f"""
import os
from pathlib import Path

from depthq.cli.model_and_data import model_folder
from depthq.codes.shards import ShardFolder, ShardPlan
from depthq.encoding import ImagesToEncode, encode_shards
from depthq.runs import load_model

class OnlyHere(ImagesToEncode):
    def open(self):
        raise FileNotFoundError("no photos on this machine")

model = load_model(model_folder("photos-small"))
folder = ShardFolder.of_plan(Path({str(tmp_path / "codes")!r}), ShardPlan(model.fingerprint(), {{}}, 64, 64))
images = OnlyHere({str(source)!r}, "all", None, {{}}, 64)
try:
    list(encode_shards(model, images, folder, workers=1, address={cluster!r}))
except ValueError as error:
    print(error)
"""
    done = run([sys.executable, "-c", script])
    line = done.stdout.splitlines()[-1]
    assert line.startswith("workers must all start and find depthq, model and data; got: ")
    assert "no photos on this machine" in line


def test_a_bad_image_ends_the_run_and_skipping_it_goes_on(source, expected, tmp_path, cluster):
    out = tmp_path / "codes"
    strict = [
        option for option in encode(source, "codes", "--ray", cluster) if option not in ("--on-bad-image", "skip")
    ]
    failed = run(strict, cwd=tmp_path)  # a relative path, which workers must find, too
    assert failed.returncode == 1
    assert "row 130 of" in failed.stderr.splitlines()[-1]
    assert num_done(out) < NUM_SHARDS
    assert run(encode(source, "codes", "--ray", cluster), cwd=tmp_path).returncode == 0
    assert rows(out) == expected


def test_bad_images_alone_are_an_error_as_in_one_process(tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    Image.new("RGBA", (16, 16)).save(bad / "clear.png")
    done = run(encode(bad, "codes", "--workers", "1"), cwd=tmp_path)
    assert done.returncode == 1
    assert "images must hold at least one that can be used; got none, 1 bad ones skipped: " in done.stderr


def test_gray_images_are_colour_to_a_colour_model_and_another_folder_is_refused(tmp_path, write_photos):
    gray, others = (write_photos(tmp_path / name, count=3, channels=1, seed=len(name)) for name in ("gray", "others"))
    out, file = tmp_path / "codes", tmp_path / "codes.parquet"
    assert run(encode(gray, out, "--workers", "1")).returncode == 0
    assert main(["encode", "photos-small", "--data", str(gray), "--out", str(file)]) == 0
    assert rows(out) == rows(file)
    refused = run(encode(others, out, "--workers", "1"))
    assert refused.returncode == 1
    assert f"it has source {gray}, got {others}; run the same command, or choose another --out" in refused.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker to kill in /proc")
def test_a_cluster_of_two_nodes_does_the_same_though_a_worker_is_killed(source, expected, tmp_path, cluster):
    out = tmp_path / "codes"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(encode(source, out, "--ray", cluster), text=True, **pipes) as process:
        wait_for(lambda: num_done(out) >= 1, process)
        os.kill(workers()[0], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert "codes of 499 of 500 images" in stdout
    assert rows(out) == expected
    assert sorted(json.loads(line)["shard"] for line in (out / "done.jsonl").read_text().splitlines()) == list(
        range(NUM_SHARDS)
    )


def test_a_shard_that_fails_is_named_in_one_line_and_the_others_stay(source, tmp_path, cluster):
    out = tmp_path / "codes"
    assert run(encode(source, out, "--ray", cluster)).returncode == 0
    shard = out / "codes-00005-of-00008.parquet"
    shard.unlink()
    shard.mkdir()
    failed = run(encode(source, out, "--ray", cluster))
    assert failed.returncode == 1
    error = failed.stderr.splitlines()[-1]
    assert error.startswith(f"depthq encode: error: shard 5 of {out} must be encoded; got: [Errno 21] Is a directory")
    assert "Traceback" not in failed.stderr
    assert not list(out.glob(".depthq-*"))
    assert sum(file.is_file() for file in out.glob("codes-*.parquet")) == 7


def test_a_cluster_that_asks_for_a_token_is_reached_with_one(source, expected, tmp_path, monkeypatch):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    out = tmp_path / "codes"
    with cluster_of(HOME=str(tmp_path), RAY_AUTH_MODE="token") as address:
        refused = run(encode(source, out, "--ray", address))
        assert refused.returncode == 1
        assert "if that cluster asks for a token, set RAY_AUTH_MODE=token" in refused.stderr.splitlines()[-1]
        assert not list(out.glob("*.parquet"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        assert run(encode(source, out, "--ray", address)).returncode == 0
    assert rows(out) == expected


def test_a_token_that_is_not_there_is_told_of_in_one_line(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        failed = run(encode(source, tmp_path / "codes", "--ray", f"127.0.0.1:{listening.getsockname()[1]}"))
    assert failed.returncode == 1
    assert "no authentication token was found" in failed.stderr.splitlines()[-1]
    assert "put it into ~/.ray/auth_token" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "workers"),
        (["--workers", "2", "--shard-size", "100"], "--shard-size must be a multiple of 64, .*; got 100; take 128"),
        (["--ray", "127.0.0.1:9"], r"--ray must be the address of a Ray cluster; got 127\.0\.0\.1:9 \(.*refused"),
        (["--shard-size", "64"], "--shard-size must come with --workers or --ray"),
        (["--ray", "nowhere"], "--ray must be the address of a Ray cluster; got nowhere"),
        (["--workers", "2", "--device", "meta"], "device"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(source, tmp_path, capsys, options, message):
    out = tmp_path / "codes"
    assert main(["encode", "photos-small", "--data", str(source), "--out", str(out), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder_of_shards(source, tmp_path, capsys):
    file = tmp_path / "codes.parquet"
    assert main(["encode", "photos-small", "--data", str(source), "--out", str(file), "--workers", "2"]) == 2
    assert "--out must be a folder with --workers or --ray" in capsys.readouterr().err


def test_two_runs_do_not_write_into_one_folder(source, tmp_path, capsys):
    out = tmp_path / "codes"
    with only_writer(out):
        command = ["encode", "photos-small", "--data", str(source), "--out", str(out), "--workers", "2"]
        assert main(command) == 1
    assert "must have one writer; got two: process" in capsys.readouterr().err
