"""Print a script that makes a shell complete verbs and options.

examples:
  depthq completion bash > ~/.local/share/bash-completion/completions/depthq
  depthq completion zsh > ~/.zsh/completions/_depthq
"""

import argparse
import contextlib
from importlib import import_module
from typing import Literal

from jsonargparse import ArgumentParser

from depthq.extras import explain_missing

Shell = Literal["bash", "zsh", "tcsh"]


def parse(parser: ArgumentParser, arguments: list[str]) -> Shell:
    parser.add_argument("shell", type=Shell, help="bash, zsh or tcsh")
    return parser.parse_args(arguments).shell


def run(shell: Shell) -> None:
    with explain_missing():
        import shtab

    print(shtab.complete(_all_verbs(), shell=shell))


def _all_verbs() -> argparse.ArgumentParser:
    from depthq.cli.main import QUIET, VERBS

    root = argparse.ArgumentParser(prog="depthq")
    verbs = root.add_subparsers()
    for verb, what in VERBS.items():
        parser = verbs.add_parser(verb, help=what)
        parser.add_argument(QUIET, help="show no progress")
        for option, help in _options(verb):
            parser.add_argument(option, help=help)
    return root


class _Told(Exception):
    """Ends a verb's parsing where it has told all its options."""


class _Listener(ArgumentParser):
    def parse_args(self, *_, **__):
        raise _Told


def _options(verb: str) -> list[tuple[str, str]]:
    """Each option of a verb as it is shown, and what it does."""
    listener = _Listener(prog=verb)
    with contextlib.suppress(_Told):
        import_module(f"depthq.cli.{verb}").parse(listener, [])
    return [
        (option.replace("_", "-"), str(action.help or "").replace("%", "%%"))
        for action in listener._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help" and action.help != argparse.SUPPRESS
    ]
