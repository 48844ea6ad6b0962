"""The command line as a whole: verbs, help, exit codes, and what reaches the terminal."""

import subprocess
import sys

import pytest

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
    assert "verb must be one of train, evaluate, " in capsys.readouterr().err


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
