"""python -m studies.dq_paper: rows are listed, run, and never run twice; wrong names are told with the right ones."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from depthq.cli.main import with_underscores
from depthq.training.module import DQAETraining
from studies.dq_paper import Effort, command, probe
from studies.dq_paper.command import main
from studies.dq_paper.data_sets import DATA_SETS, DataSet

ROW = ["table3", "--rows", "M5-K32-l2-depthwise"]
KILLED_AT = 13
KILLED = f"""
import os, signal, sys
from studies.dq_paper.command import main
from studies.dq_paper.data_sets import DATA_SETS, DataSet
from depthq.cli.main import with_underscores
from depthq.training.module import DQAETraining

step = DQAETraining.training_step

def training_step(self, images, index):
    if self.global_step == {KILLED_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, images, index)

DATA_SETS["cifar10"] = DataSet("bundled", (3, 32, 32))
DQAETraining.training_step = training_step
main(sys.argv[1:])
"""


@pytest.fixture
def study(tmp_path):
    """Run the study at the miniature scale in a folder of its own; returns the exit code."""

    def study(*arguments: str, scale="miniature", run=main) -> int:
        folders = [word for name in ("results", "runs", "docs") for word in (f"--{name}", str(tmp_path / name))]
        return run([*arguments, "--scale", scale, *folders])

    return study


@pytest.fixture
def bundled_cifar10(monkeypatch):
    """Let the bundled photos pass for CIFAR-10."""
    monkeypatch.setitem(DATA_SETS, "cifar10", DataSet("bundled", (3, 32, 32)))


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(DQAETraining, "training_step", None)


def test_row_is_run_and_its_result_stored_once(study, tmp_path, bundled_cifar10, capsys):
    row = [*ROW, "--seeds", "1"]
    assert study(*row) == 0
    (file,) = (tmp_path / "results").glob("*.json")
    assert re.search(rf"table3/M5-K32-l2-depthwise seed 1: {re.escape(str(file))} after \d+ s", capsys.readouterr().err)
    result = json.loads(file.read_text())
    assert (result["figures"]["images"], result["experiment"]["training"]["seed"]) == (598, 1)
    before = file.read_bytes()
    assert study(*row) == 0
    assert file.read_bytes() == before
    assert study(*row, "--dry-run") == 0
    assert re.search(
        r"table3/M5-K32-l2-depthwise seed 1 +there already\n1 experiments, 1 there", capsys.readouterr().out
    )


def test_dry_run_lists_rows_and_times_and_needs_no_data(study, tmp_path, no_training, capsys):
    assert study("table3", "--rows", "M5-K128", "--dry-run", "--data", "cifar10=/nowhere") == 0
    *rows, total = capsys.readouterr().out.splitlines()
    assert len(rows) == 4 * 2  # both seeds of depthwise and shared, l2 and ce
    assert all(
        re.fullmatch(r"[0-9a-f]{12}  table3/M5-K128-\S+ seed [01] +about \d+\.\d (min|h), \S+ EFLOP", row)
        for row in rows
    )
    assert re.match(r"8 experiments, 0 there already; about \d+\.\d min, \S+ EFLOP of training", total)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_names_each_experiment_once_and_does_not_time_codecs(study, capsys):
    assert study("rate_distortion", "table3", "--rows", "jpeg-mosaic-q5", "M1-K32-l2", "--dry-run") == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    assert re.search(r"rate_distortion/jpeg-mosaic-q5 +not timed$", first)
    assert re.search(r"table3/M1-K32-l2-depthwise seed 0 +about", second)  # with M = 1, shared is the same


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_dry_run_at_the_scales_of_the_page(study, scale, monkeypatch, capsys):
    monkeypatch.setattr(probe, "_effort_of_step", lambda experiment: Effort(0.03, 2e12))
    assert study(*ROW, "--dry-run", scale=scale) == 0
    steps = {"cpu": "about 0.5 min, 0.002 EFLOP", "gpu": "about 78.1 min, 0.312 EFLOP"}  # 1,000 and 156,250
    assert steps[scale] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ITEM must be at least one of table1, table2, table3, "),
        (["table9"], "item must be one of table1, table2, table3, table4, decoupling, convergence, mnist, "),
        (["mnist", "--rows", "M5"], "--rows must match one of depthwise, shared; got 'M5'"),
        (["mnist", "--data", "MNIST=mnist/"], "NAME one of bundled, cifar10, mnist, imagenet32, "),
        (["mnist", "--data", "mnist"], "--data must be NAME=SOURCE with NAME one of bundled, "),
        (["mnist", "--data", "mnist="], "--data must be NAME=SOURCE with NAME one of bundled, "),
        (["mnist", "--jobs", "0"], "jobs"),
        (["mnist", "--seeds", "-1"], "seeds"),
        (["mnist", "--epochs", "3"], "--epochs"),
    ],
)
def test_wrong_arguments_are_usage_errors_that_leave_nothing(study, tmp_path, capsys, arguments, message):
    assert study(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def documented_commands() -> list[str]:
    """Those of the READMEs and of the command's own help."""
    study = Path(command.__file__).parent
    texts = [command.__doc__ or "", *((folder / "README.md").read_text() for folder in (study, study.parents[1]))]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [line for line in lines if line.startswith("python -m studies.dq_paper ")]


@pytest.mark.parametrize("line", documented_commands())
def test_documented_command_is_understood(line):
    arguments = shlex.split(line, comments=True)[3:]
    command.parse(ArgumentParser(), [with_underscores(argument) for argument in arguments])


def test_help_shows_options_and_examples(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "usage: python -m studies.dq_paper" in out
    assert "--rows ROWS" in out
    assert "python -m studies.dq_paper table3 --scale cpu" in out


def test_unknown_scale_lists_the_scales(study, capsys):
    assert study(*ROW, scale="tpu") == 2
    assert "--scale must be one of cpu, cpu-long, gpu, miniature; got 'tpu'" in capsys.readouterr().err


def test_missing_data_fails_with_the_remedy(study, tmp_path, capsys):
    assert study(*ROW, "--data", f"cifar10={tmp_path / 'nowhere'}") == 1
    err = capsys.readouterr().err
    assert "table3/M5-K32-l2-depthwise seed 0: failed: data set cifar10 must be readable; got: " in err
    assert "get it (uoft-cs/cifar10 on the Hugging Face hub) and give --data cifar10=FOLDER" in err
    assert "python -m studies.dq_paper: error: experiments must all succeed; got 1 that failed, as told above" in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


@pytest.mark.filterwarnings("default")
def test_damaged_result_is_named_and_counts_as_missing(study, tmp_path, capsys):
    assert study(*ROW, "--dry-run") == 0
    (name,) = re.findall(r"^[0-9a-f]{12}", capsys.readouterr().out)
    file = tmp_path / "results" / f"training-cifar10-l2-depthwise-M5-K32-seed0-{name}.json"
    file.parent.mkdir()
    file.write_text("{")
    assert study(*ROW, "--dry-run") == 0
    out, err = capsys.readouterr()
    assert f"python -m studies.dq_paper: warning: {file} must be a whole result; got: " in err
    assert "1 experiments, 0 there already" in out
    assert file.read_text() == "{"


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(study, tmp_path, bundled_cifar10, monkeypatch, capsys):
    def training_step(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(DQAETraining, "training_step", training_step)
    assert study(*ROW) == 130
    assert (
        "python -m studies.dq_paper: interrupted; run the same again: it goes on where it was"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "results").exists()


def test_row_is_declared_trained_killed_resumed_stored_and_rendered(
    study, tmp_path, bundled_cifar10, monkeypatch, capsys
):
    killed = study(*ROW, run=lambda words: subprocess.run([sys.executable, "-c", KILLED, *words]).returncode)
    assert killed == -9
    assert not (tmp_path / "results").exists()
    steps, step = [], DQAETraining.training_step

    def training_step(self, images, index):
        steps.append(self.global_step)
        return step(self, images, index)

    monkeypatch.setattr(DQAETraining, "training_step", training_step)
    assert study(*ROW) == 0
    assert 0 < steps[0] <= KILLED_AT
    assert steps == list(range(steps[0], 20))
    (file,) = (tmp_path / "results").glob("*.json")
    error = json.loads(file.read_text())["figures"]["mse_normalized"]
    assert f"| M5-K32-l2 | {error:.4g} |" in capsys.readouterr().out
    assert study("--render") == 0
    page = (tmp_path / "docs" / "reproduction.md").read_text()
    assert "## Table 3: codebooks, codes and likelihoods, one level, scale miniature" in page
    assert f"| M5-K32-l2 | {error:.4g} |" in page
    assert "## Units and omissions" in (tmp_path / "docs" / "findings.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--render", "--rows", "M5"], "--rows must come with an ITEM"),
        (["--render", "table3", "--dry-run"], "--render must come without --dry-run"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(study, capsys, arguments, message):
    assert study(*arguments) == 2
    assert message in capsys.readouterr().err
