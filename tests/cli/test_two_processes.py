"""Training on two processes by the command line: the same as one with the joined batch, and no hang if one dies."""

import os
import signal
import subprocess
import sys
import time

import torch

from depthq.cli import main
from depthq.runs import load_model, read_metrics

OPTIONS = ["--preset", "tiny", "--image-size", "16", "--precision", "32-true", "--accelerator", "cpu"]
TWO = ["--devices", "2", "--strategy", "ddp"]


def start(photos, run, *options):
    command = ["train", "--data", str(photos), "--out", str(run), *OPTIONS, *TWO, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, "-m", "depthq", *command], stderr=subprocess.PIPE, text=True, env=environment
    )


def children_of(process):
    found = []
    for line in subprocess.run(
        ["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        pid, parent = line.split()
        if parent == str(process.pid):
            found.append(int(pid))
    return found


def test_two_processes_are_one_with_the_joined_batch(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    two = start(photos, tmp_path / "two", "--steps", "50", "--batch-size", "4", "--flip=false")
    _, err = two.communicate(timeout=300)
    assert two.returncode == 0, err
    one = [
        "train",
        "--data",
        str(photos),
        "--out",
        str(tmp_path / "one"),
        *OPTIONS,
        "--steps",
        "50",
        "--batch-size",
        "8",
    ]
    assert main([*one, "--flip=false"]) == 0
    ours, theirs = (load_model(tmp_path / name).state_dict() for name in ("two", "one"))
    for name, tensor in ours.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-5, msg=name)
    rows = [
        {row["step"]: row["loss"] for row in read_metrics(tmp_path / n / "metrics.jsonl") if "loss" in row}
        for n in ("two", "one")
    ]
    assert rows[0].keys() == rows[1].keys()
    assert all(abs(rows[0][step] - rows[1][step]) < 1e-5 * abs(rows[1][step]) for step in rows[0])


def test_a_rank_that_dies_ends_the_run_in_one_line_and_it_goes_on(photos, tmp_path):
    run = tmp_path / "run"
    first = start(photos, run, "--steps", "100000", "--checkpoint-every", "5", "--batch-size", "4")
    while not list(run.glob("checkpoints/*.ckpt")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    (child,) = children_of(first)
    os.kill(child, signal.SIGKILL)
    _, err = first.communicate(timeout=120)
    assert first.returncode != 0
    assert "Traceback" not in err
    assert "go on with --resume" in err
    (checkpoint,) = run.glob("checkpoints/*.ckpt")
    steps = int(checkpoint.stem.removeprefix("step=")) + 3
    again = ["train", "--out", str(run), "--resume", "--devices", "1", "--accelerator", "cpu"]
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace("steps: 100000", f"steps: {steps}"))
    assert main(again) == 0
