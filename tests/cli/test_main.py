"""The command line as a whole: verbs, help, exit codes, and what reaches the terminal."""

import re
import subprocess
import sys

import pytest
from PIL import Image

from depthq.cli import main
from depthq.cli.main import VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_shows_examples(verb, capsys):
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"examples:\n  depthq {verb} " in out
    assert f"usage: depthq {verb}" in out


def test_overview_lists_all_verbs(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in VERBS)


def test_no_verb_is_a_usage_error_that_shows_the_overview(capsys):
    assert main([]) == 2
    assert "usage: depthq VERB" in capsys.readouterr().out


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("depthq 0.")


def test_unknown_verb_lists_the_verbs(capsys):
    assert main(["trian"]) == 2
    assert "verb must be one of demo, train, evaluate, " in capsys.readouterr().err


def test_errors_are_one_message_without_usage_or_traceback(capsys):
    assert main(["evaluate", "nowhere"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "depthq evaluate: error: nowhere must be a folder with a trained model or a shipped one (photos-small, "
        "cifar10-lossless, mnist-tiny); it is neither; make one with depthq train, or check the spelling\n"
    )


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_missing_device_is_a_usage_error(device, capsys, trained_run):
    assert main(["info", str(trained_run), "--device", device]) == 2
    assert f"device must be one of this machine; got {device}" in capsys.readouterr().err


def test_module_runs_as_a_program_and_says_nothing_but_results(trained_run):
    command = [sys.executable, "-m", "depthq", "info", str(trained_run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("parameters ")
    assert done.stderr == ""


def test_help_shows_defaults_and_one_spelling(capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"--num-codebooks\b.*?\(default:\s+5\)", text, re.DOTALL)
    assert not re.search(r"--[a-z]+_[a-z]+", text)
    assert re.search(r"preset +small +paper +tiny\n", text)
    assert re.search(r"--codebook-size +128 +\[256, 128\] +8\n", text)


def test_wrong_options_are_told_as_they_are_typed(capsys):
    assert main(["train", "--data", "bundled", "--out", "x", "--num_codebook", "3"]) == 2
    assert "unrecognized arguments: --num-codebook" in capsys.readouterr().err


def test_quiet_shows_results_alone(photos, tmp_path, capsys):
    options = ["--data", str(photos), "--out", str(tmp_path / "run"), "--preset", "tiny", "--steps", "1"]
    assert main(["train", *options, "--quiet"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "trained 1 steps" in told.out


def test_remedies_are_options_of_the_command_line(photos, tmp_path, trained_run, capsys):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"")
    assert main(["evaluate", str(trained_run), "--data", str(data), "--split", "all"]) == 1
    assert "or pass --on-bad-image skip\n" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*has no prior")
def test_remedies_that_a_verb_does_not_know_are_not_told(tmp_path, trained_run, capsys):
    (tmp_path / "a.png").write_bytes(b"")
    assert main(["sample", str(trained_run), "--level-0-of", str(tmp_path / "a.png"), "--out", "b.png"]) == 1
    assert capsys.readouterr().err.endswith("; replace or remove it\n")


def test_a_crop_that_an_image_is_too_small_for_is_told_as_such(write_photos, tmp_path, trained_run, capsys):
    data = write_photos(tmp_path / "data", count=150)
    Image.new("RGB", (8, 8)).save(data / "001.png")  # not among the 100 whose headers are read
    assert main(["evaluate", str(trained_run), "--data", str(data), "--split", "all", "--crop", "16"]) == 1
    told = capsys.readouterr().err
    assert "images must be at least --crop, 16 x 16" in told
    assert "pass a smaller --crop" in told


def test_paths_that_cannot_be_are_told_in_one_line(capsys):
    assert main(["info", "a" * 300]) == 2
    assert "File name too long" in capsys.readouterr().err
    assert main(["info", "~no-such-user/model"]) == 1
    assert "~no-such-user/model must be a folder" in capsys.readouterr().err
    assert main(["train", "--data", "~no-such-user/photos", "--out", "runs/never"]) == 1
    assert "data source must exist; got ~no-such-user/photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_memory_that_runs_out_is_told_in_one_line(trained_run, monkeypatch, capsys, error):
    def run(settings):
        raise error

    monkeypatch.setattr("depthq.cli.info.run", run)
    assert main(["info", str(trained_run)]) == 1
    assert "there must be memory for it" in capsys.readouterr().err


def test_ctrl_c_while_it_starts_is_no_traceback(monkeypatch, capsys):
    def parse(parser, arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("depthq.cli.info.parse", parse)
    assert main(["info", "model"]) == 130
    assert capsys.readouterr().err == "depthq: interrupted\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_are_told_verbs_and_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("reconstruct", "--num-codebooks", "--lossless", "--quiet"):
        assert word in script


def test_a_reader_that_stops_early_is_no_error():
    command = f"{sys.executable} -m depthq completion bash | head -n 1"
    result = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert result.stderr == ""
    assert result.stdout.startswith("#")
