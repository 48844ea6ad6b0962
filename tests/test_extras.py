"""Packages of extras: what is said where one is missing, and that the table is pyproject.toml's."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch

from depthq import extras
from depthq.cli import main
from depthq.cli.main import VERBS
from depthq.data.reading import EncodedImage, read_shape
from depthq.extras import PACKAGES, MissingExtraError, check_installed, explain_missing
from depthq.pixels import to_picture
from depthq.report.plots import plot_position_entropy

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def lacking(monkeypatch):
    """Make packages look as if they were not installed."""

    def lacking(*packages: str) -> None:
        real = extras.find_spec
        monkeypatch.setattr(extras, "find_spec", lambda name: None if name in packages else real(name))

    return lacking


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requirements}


@pytest.mark.parametrize("extra", PACKAGES)
def test_table_names_what_the_extra_brings(extra):
    distributions = packages_distributions()
    brought = {distributions.get(package, [package])[0].lower() for package in PACKAGES[extra]}
    assert brought == names_of(PROJECT["optional-dependencies"][extra])


def test_core_is_four_packages():
    assert names_of(PROJECT["dependencies"]) == {"torch", "numpy", "safetensors", "huggingface-hub"}


@pytest.mark.parametrize("verb", VERBS)
def test_verb_without_its_extra_says_in_one_line_what_to_install(verb, lacking, capsys):
    lacking("jsonargparse", "lightning", "matplotlib", "PIL")
    assert main([verb, "--help"]) == 1
    captured = capsys.readouterr()
    wanted = "train,report" if verb in ("analyze", "demo", "report") else "train"
    assert captured.out == ""
    assert re.fullmatch(
        rf"depthq {verb}: error: jsonargparse, lightning[^\n]* must be installed for this; got none; "
        rf"pip install 'depthq\[{wanted}\]'\n",
        captured.err,
    )


def test_verb_does_not_begin_without_what_it_needs_at_its_end(lacking, trained_run, tmp_path, capsys):
    lacking("matplotlib")
    assert main(["analyze", str(trained_run), "--out", str(tmp_path / "analysis")]) == 1
    said = "matplotlib must be installed for this; got none; pip install 'depthq[report]'"
    assert capsys.readouterr().err == f"depthq analyze: error: {said}\n"
    assert not (tmp_path / "analysis").exists()


def test_overview_wants_no_extra(lacking, capsys):
    lacking(*{package for packages in PACKAGES.values() for package in packages})
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert main(["trian"]) == 2
    assert "usage: depthq VERB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "use", "extra"),
    [
        ("PIL", lambda: to_picture(torch.zeros(3, 2, 2, dtype=torch.uint8)), "train"),
        ("PIL", lambda: read_shape(EncodedImage("a.png", b"")), "train"),
        ("matplotlib.figure", lambda: plot_position_entropy(torch.zeros(1, 2, 2)), "report"),
    ],
)
def test_function_without_its_extra_says_what_to_install(package, use, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"must be installed for this; .*'depthq\[{extra}\]'"):
        use()


def test_several_extras_are_named_together(lacking):
    lacking("yaml", "jinja2")
    with pytest.raises(MissingExtraError, match=r"yaml, jinja2 must be .*; pip install 'depthq\[train,report\]'"):
        check_installed("train", "report")


def test_many_packages_are_counted(lacking):
    lacking(*PACKAGES["train"])
    with pytest.raises(MissingExtraError, match="datasets, filelock, fsspec and 9 more must be installed"):
        check_installed("train")


def test_other_missing_modules_are_not_explained():
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"), explain_missing():
        import nowhere  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'depthq\.nowhere'"), explain_missing():
        import depthq.nowhere  # noqa: F401


def test_missing_package_is_explained_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingExtraError, match=r"^lightning must be") as caught, explain_missing(), explain_missing():
        import lightning  # noqa: F401
    assert caught.value.name == "lightning"
