"""Checkpoints are whole or absent, and opening one runs no code."""

import errno
import os
import pickle
import zipfile

import pytest
import torch

from depthq.cli import main
from depthq.training.checkpoints import AtomicCheckpointIO, newest_checkpoint, step_of


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def full_disk(monkeypatch):
    """Let the disk be full when a file is flushed to it, as `os.fsync` then says."""

    def fsync(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(os, "fsync", fsync)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_checkpoint_comes_back_as_it_was(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "step=00000001.ckpt"
    io.save_checkpoint({"step": 1, "weights": {"w": torch.arange(3.0)}}, path)
    loaded = io.load_checkpoint(path)
    assert loaded["step"] == 1
    assert torch.equal(loaded["weights"]["w"], torch.tensor([0.0, 1.0, 2.0]))
    assert names(tmp_path) == ["step=00000001.ckpt"]


def test_full_disk_leaves_the_former_checkpoint(tmp_path, full_disk):
    io, path = AtomicCheckpointIO(), tmp_path / "step=00000001.ckpt"
    io.save_checkpoint({"step": 1}, path)
    full_disk()
    with pytest.raises(OSError, match=r"step=00000001.ckpt could not be written .*No space left.*make room"):
        io.save_checkpoint({"step": 2}, path)
    assert io.load_checkpoint(path) == {"step": 1}
    assert names(tmp_path) == ["step=00000001.ckpt"]


def test_disk_that_fills_in_the_middle_of_a_checkpoint_leaves_the_former(tmp_path):
    resource = pytest.importorskip("resource")
    io, path = AtomicCheckpointIO(), tmp_path / "step=00000001.ckpt"
    io.save_checkpoint({"step": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # Python ignores SIGXFSZ, so that writing fails
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written"):
            io.save_checkpoint({"step": 2, "weights": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert io.load_checkpoint(path) == {"step": 1}
    assert names(tmp_path) == ["step=00000001.ckpt"]


@pytest.mark.parametrize("write", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb, protocol=2))])
def test_opening_a_checkpoint_runs_no_code(tmp_path, write):
    path, traces = tmp_path / "step=00000001.ckpt", tmp_path / "traces"
    write({"state_dict": Bomb(traces)}, path)
    with pytest.raises((pickle.UnpicklingError, zipfile.BadZipFile)):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not traces.exists()


def test_newest_checkpoint_is_that_of_the_latest_step(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for name in ("step=00000900.ckpt", "step=00001000.ckpt", "step=00002000.ckpt.partial"):
        (tmp_path / name).touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "step=00001000.ckpt"
    assert step_of(tmp_path / "step=00001000.ckpt") == 1000


def test_run_that_fills_the_disk_stops_and_resumes_from_the_former_checkpoint(tmp_path, photos, monkeypatch, capsys):
    run = tmp_path / "run"
    train = ["train", "--data", str(photos), "--out", str(run), "--preset", "tiny", "--steps", "9"]
    save = torch.save

    def save_until_full(checkpoint, file):
        if checkpoint["global_step"] == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", save_until_full)
    assert main([*train, "--checkpoint-every", "3"]) == 1
    assert "step=00000006.ckpt could not be written" in capsys.readouterr().err
    assert names(run / "checkpoints") == ["step=00000003.ckpt"]
    monkeypatch.setattr(torch, "save", save)
    assert main(["train", "--out", str(run), "--resume"]) == 0
    assert names(run / "checkpoints") == ["step=00000009.ckpt"]


@pytest.fixture
def run_of_3_steps(tmp_path, photos):
    """A finished run, and what makes it go on."""
    run = tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "3", "--checkpoint-every", "4"]
    assert main(["train", "--data", str(photos), "--out", str(run), *options]) == 0
    return run, ["train", "--out", str(run), "--resume", "--steps", "5"]


def assert_is_damaged(checkpoint, resume, capsys):
    """The checkpoint is named with a remedy, which works."""
    assert main(resume) == 1
    err = capsys.readouterr().err
    assert f"{checkpoint} must be a whole checkpoint of this run; got one that is damaged or of another kind" in err
    assert "delete it, and --resume starts from scratch" in err
    checkpoint.unlink()
    assert main(resume) == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_cut_off_checkpoint_is_named_with_the_remedy(run_of_3_steps, capsys, share):
    run, resume = run_of_3_steps
    (path,) = (run / "checkpoints").iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_is_damaged(path, resume, capsys)


def test_checkpoint_with_a_changed_byte_is_named_with_the_remedy(run_of_3_steps, capsys):
    run, resume = run_of_3_steps
    (path,) = (run / "checkpoints").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert_is_damaged(path, resume, capsys)


@pytest.mark.parametrize("part", ["state_dict", "optimizer_states", "loops"])
def test_checkpoint_of_another_kind_is_named_with_the_remedy(run_of_3_steps, capsys, part):
    run, resume = run_of_3_steps
    (path,) = (run / "checkpoints").iterdir()
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[part] = {"other": torch.zeros(1)}
    torch.save(checkpoint, path)
    assert_is_damaged(path, resume, capsys)


@pytest.mark.parametrize("hook", ["configure_optimizers", "on_fit_start", "setup", "on_save_checkpoint"])
def test_what_fails_beside_a_checkpoint_is_not_laid_on_it(run_of_3_steps, monkeypatch, hook):
    """Lightning restores the model, makes optimizers, and restores these: a fault in between, or later, is what it
    is."""

    def fail(*_, **__):
        raise RuntimeError("driver too old")

    monkeypatch.setattr(f"depthq.training.module.DQAETraining.{hook}", fail)
    with pytest.raises(RuntimeError, match="driver too old"):
        main(run_of_3_steps[1])


def test_memory_that_runs_out_over_a_checkpoint_is_not_laid_on_it(run_of_3_steps, monkeypatch, capsys):
    def load(*_, **__):
        raise RuntimeError("CUDA out of memory")

    for place in (torch, torch.optim.AdamW):
        with monkeypatch.context() as patched:
            patched.setattr(place, "load" if place is torch else "load_state_dict", load)
            assert main(run_of_3_steps[1]) == 1
        err = capsys.readouterr().err
        assert "there must be memory for it" in err
        assert "delete it" not in err
