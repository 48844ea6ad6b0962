"""A run that is killed, at whatever moment, and resumed ends as the run that was not killed, bit for bit."""

import json
import multiprocessing
import signal

import pytest

from depthq.cli import main

STEPS = ["--steps", "23", "--validate-every", "10", "--checkpoint-every", "5", "--log-every", "5"]

# Each replaces one function of the child by one that kills the process on the way.
MOMENTS = {
    "before the first checkpoint": """
        from depthq.training.module import DQAETraining as room
        def training_step(self, images, index, original=room.training_step):
            return die() if self.global_step == 3 else original(self, images, index)
        room.training_step = training_step
        """,
    "between two checkpoints": """
        from depthq.training.module import DQAETraining as room
        def training_step(self, images, index, original=room.training_step):
            return die() if self.global_step == 17 else original(self, images, index)
        room.training_step = training_step
        """,
    "half-way through a row of metrics.jsonl": """
        from depthq.training.callbacks import MetricsFile as room
        def log_metrics(self, metrics, step, original=room.log_metrics):
            if step == 15:
                with self.path.open("a") as file:
                    file.write('{"step": 15, "lo')
                die()
            original(self, metrics, step)
        room.log_metrics = log_metrics
        """,
    "half-way through a checkpoint": """
        import io, torch
        def save(checkpoint, file, original=torch.save):
            if checkpoint["global_step"] == 10:
                original(checkpoint, whole := io.BytesIO())
                file.write(whole.getvalue()[:len(whole.getvalue()) // 2])
                file.flush()
                die()
            original(checkpoint, file)
        torch.save = save
        """,
    "when the former checkpoint is not deleted yet": """
        from pathlib import Path as room
        def unlink(self, missing_ok=False, original=room.unlink):
            return die() if self.name == "step=00000005.ckpt" else original(self, missing_ok)
        room.unlink = unlink
        """,
    "half-way through the model": """
        from depthq import DQAE as room
        def save_pretrained(self, folder, notes="", original=room.save_pretrained):
            original(self, folder, notes)
            (folder / "model.safetensors").write_bytes(b"half")
            die()
        room.save_pretrained = save_pretrained
        """,
    "right behind a checkpoint": """
        from depthq.training.checkpoints import Checkpoints as room
        def save(self, trainer, original=room.save):
            original(self, trainer)
            if trainer.global_step == 15:
                die()
        room.save = save
        """,
    "in the middle of a validation": """
        from depthq.training.module import DQAETraining as room
        def validation_step(self, images, index, original=room.validation_step):
            return die() if self.global_step == 20 else original(self, images, index)
        room.validation_step = validation_step
        """,
    "between a validation and its checkpoint": """
        from depthq.training.checkpoints import Checkpoints as room
        def save(self, trainer, original=room.save):
            return die() if trainer.global_step == 20 else original(self, trainer)
        room.save = save
        """,
    "behind the last step, before it is validated": """
        from lightning.pytorch import Trainer as room
        room.validate = lambda *_, **__: die()
        """,
    "behind the last validation, before it is saved": """
        from depthq.training.checkpoints import Checkpoints as room
        def save(self, trainer, original=room.save):
            return die() if trainer.global_step == 23 else original(self, trainer)
        room.save = save
        """,
}

CHILD = """
if True:
        import os, signal
        from depthq.cli import main
        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        {moment}
        main({arguments!r})
"""


@pytest.fixture(scope="module")
def run_in_child():
    """Run a script in a process of its own, forked from one that has imported everything; returns the exit code."""
    context = multiprocessing.get_context("forkserver")

    def run_in_child(script: str) -> int | None:
        child = context.Process(target=exec, args=(script, {}))
        child.start()
        child.join()
        return child.exitcode

    return run_in_child


FLOAT32 = ["--precision", "32-true"]
CAUSAL = ["--likelihood", "logistic_mixture", "--horizon", "2", "--codebook-size", "[8,16]"]
KINDS = {
    "float32": FLOAT32,
    "bfloat16": ["--precision", "bf16-mixed"],
    "drawn anew every step": [*FLOAT32, *CAUSAL, "--level-dropout", "0.5", "--codebook-dropout", "0.5"],
}


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory, photos):
    """Of each kind a run that nobody killed."""
    runs = {}
    for kind in KINDS:
        runs[kind] = tmp_path_factory.mktemp("whole") / "run"
        assert main(arguments(photos, runs[kind], kind)) == 0
    return runs


def arguments(photos, run, kind):
    return ["train", "--data", str(photos), "--out", str(run), "--preset", "tiny", *KINDS[kind], *STEPS]


def what_is_left(run):
    """All files of a run: the bytes of each, but of checkpoints and metrics.jsonl only what is not time."""
    files = {str(path.relative_to(run)): path for path in sorted(run.rglob("*")) if path.is_file()}
    left = {name: path.read_bytes() for name, path in files.items() if path.suffix not in (".ckpt", ".jsonl")}
    rows = [json.loads(row) for row in files["metrics.jsonl"].read_text().splitlines()]
    left["metrics.jsonl"] = [{name: row[name] for name in row if name != "images_per_second"} for row in rows]
    left["checkpoints"] = [name for name in files if name.startswith("checkpoints")]
    return left


KILLS = [(moment, "float32") for moment in MOMENTS]
KILLS += [("between two checkpoints", kind) for kind in ("bfloat16", "drawn anew every step")]


@pytest.mark.parametrize(("moment", "kind"), KILLS)
def test_killed_and_resumed_run_ends_as_one_that_was_not_killed(
    moment, kind, run_in_child, whole_runs, photos, tmp_path
):
    run = tmp_path / "run"
    script = CHILD.format(moment=MOMENTS[moment].strip(), arguments=arguments(photos, run, kind))
    assert run_in_child(script) == -signal.SIGKILL
    assert main(["train", "--out", str(run), "--resume"]) == 0
    assert what_is_left(run) == what_is_left(whole_runs[kind])


def test_run_killed_twice_ends_as_one_that_was_not_killed(run_in_child, whole_runs, photos, tmp_path):
    run = tmp_path / "run"
    first = CHILD.format(
        moment=MOMENTS["half-way through a checkpoint"].strip(), arguments=arguments(photos, run, "float32")
    )
    second = CHILD.format(
        moment=MOMENTS["between two checkpoints"].strip(), arguments=["train", "--out", str(run), "--resume"]
    )
    assert run_in_child(first) == -signal.SIGKILL
    assert run_in_child(second) == -signal.SIGKILL
    assert main(["train", "--out", str(run), "--resume"]) == 0
    assert what_is_left(run) == what_is_left(whole_runs["float32"])


def test_rows_name_the_steps_done_and_the_last_step_is_always_validated(whole_runs):
    rows = what_is_left(whole_runs["float32"])["metrics.jsonl"]
    assert [row["step"] for row in rows if "loss" in row] == [5, 10, 15, 20]
    assert [row["step"] for row in rows if "validation_psnr_db" in row] == [10, 20, 23]


def test_only_the_newest_checkpoint_is_kept(whole_runs):
    assert [path.name for path in (whole_runs["float32"] / "checkpoints").iterdir()] == ["step=00000023.ckpt"]


def test_seed_decides_the_weights(whole_runs, photos, tmp_path):
    other = tmp_path / "run"
    assert main([*arguments(photos, other, "float32"), "--seed", "1"]) == 0
    assert (
        what_is_left(other)["model/model.safetensors"] != what_is_left(whole_runs["float32"])["model/model.safetensors"]
    )
