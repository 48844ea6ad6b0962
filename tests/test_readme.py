"""The README's snippets run, and its commands are ones that the program takes."""

import importlib
import importlib.util
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

import depthq
from depthq import DQAE
from depthq.cli.main import VERBS, with_underscores
from depthq.models import PRESETS
from depthq.priors import TransformerPrior

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_python_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = replace(PRESETS["tiny"], codebook_size=(8, 4), num_codebooks=3, likelihood="categorical")
    model = DQAE(config)
    model.save_pretrained("runs/photos/model")
    TransformerPrior(model.codebook_sizes, ((4, 4), (8, 8)), width=8, num_layers=1).save_pretrained("runs/photos/prior")
    names = {"images": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}
    for snippet in blocks("python"):
        exec(snippet, names)
    assert names["codes"].num_bits() == 4 * 4 * 3 * 3 + 8 * 8 * 3 * 2
    assert torch.equal(depthq.decompress(names["model"], names["data"], names["prior"]), names["images"])


def documented_commands() -> list[str]:
    lines = [line for block in blocks("") for line in block.splitlines()]
    for verb in VERBS:
        lines += [line.strip() for line in (importlib.import_module(f"depthq.cli.{verb}").__doc__ or "").splitlines()]
    # What --resume lacks on the line, it reads from the run; tests/cli covers it.
    return [line for line in lines if line.startswith("depthq ") and "--resume" not in line]


@pytest.mark.parametrize("command", documented_commands())
def test_documented_command_is_understood(command):
    _, verb, *arguments = shlex.split(command.partition(" > ")[0], comments=True)
    module = importlib.import_module(f"depthq.cli.{verb}")
    module.parse(ArgumentParser(), [with_underscores(argument) for argument in arguments])


def test_every_verb_documents_a_command():
    documented = {command.split()[1] for command in documented_commands()}
    assert documented == set(VERBS)


def test_what_a_package_index_shows_has_no_link_that_only_holds_here():
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", Path(__file__).parents[1] / "hatch_build.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    text = "![a](docs/a.png)\n\n*What it shows.*\n\n[how](docs/how.md#x), [docs/b.md](docs/b.md), [paper](https://arxiv.org/1)\n"
    assert hook.for_an_index(text) == "how (docs/how.md), docs/b.md, [paper](https://arxiv.org/1)\n"
    shown = hook.for_an_index((Path(__file__).parents[1] / "README.md").read_text())
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]*)\)", shown))
