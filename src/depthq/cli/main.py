"""depthq VERB ...: finds the verb's module, parses its arguments, and turns errors into exit codes."""

import errno
import io
import os
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from depthq import __version__
from depthq.extras import MissingExtraError, check_installed, explain_missing, is_installed
from depthq.memory import is_of_memory

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

VERBS = {
    "demo": "show on one page what all this does, in minutes",
    "train": "train a model on images",
    "evaluate": "measure likelihood, rate and reconstruction of a model",
    "prior": "train a prior over the codes of a model",
    "sample": "draw images from a prior",
    "reconstruct": "draw originals above reconstructions",
    "analyze": "measure and draw what codes say and share",
    "report": "write one HTML page about a run",
    "encode": "turn images into a file of codes",
    "decode": "turn a file of codes back into images",
    "compress": "turn images into one small file, without loss if wanted",
    "decompress": "turn such a file back into images",
    "density": "describe features of any network by trained codebooks",
    "fit": "learn codebooks of embeddings, without a network",
    "info": "show levels, code shapes, bits and parameters of a model; the shipped ones with --list",
    "completion": "print what makes a shell complete verbs and options",
}
MORE_EXTRAS = {
    "analyze": ["report"],
    "report": ["report"],
    "demo": ["coding", "report"],
    "compress": ["coding"],
    "decompress": ["coding"],
}
"""What verbs want beside [train]."""
QUIET = "--quiet"
"""An option of every verb."""
USAGE_ERROR, DATA_ERROR, INTERRUPTED = 2, 1, 130
_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota",
    errno.EACCES: "allow it, or give another place",
    errno.EROFS: "give another place",
    errno.ENOENT: "check the path",
}
"""Of what the system refuses."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb, and let whoever reads what it prints stop early, as head does.

    Returns and arguments: as `run_verb`.
    """
    try:
        code = run_verb(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:  # before the command runs, which tells more
        _say("depthq: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's own flush at the end is quiet
        return 0
    return code


def run_verb(arguments: list[str]) -> int:
    """Run one verb.

    Returns:
        0 on success, 1 if data, files or training failed or a package is missing, 2 if the command itself was wrong,
        130 if interrupted.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else USAGE_ERROR
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # any file's name can be shown
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        print(f"depthq {__version__}")
        return 0
    if verb not in VERBS:
        _say(f"depthq: error: verb must be one of {', '.join(VERBS)}; got {verb!r}")
        return USAGE_ERROR
    name, extras = f"depthq {verb}", ["train", *MORE_EXTRAS.get(verb, [])]
    try:
        if not is_installed("jsonargparse"):  # then there is no help either: name all that the verb wants, at once
            check_installed(*extras)
        with explain_missing():
            return run_command(import_module(f"depthq.cli.{verb}"), name, rest, extras)
    except MissingExtraError as error:
        _say(f"{name}: error: {error}")
        return DATA_ERROR


def run_command(command: ModuleType, name: str, arguments: list[str], extras: Sequence[str] = ()) -> int:
    """Parse the arguments of a command and run it; returns the exit code that `main` tells.

    Args:
        command: With `parse(parser, arguments)`, which gives its settings, `run(settings)`, and a text for --help.
        name: What the user calls it by.
        arguments: Behind that name.
        extras: Without which it does not begin to run.

    Raises:
        MissingExtraError: If a package of these extras is missing.
    """
    is_quiet, arguments = QUIET in arguments, [argument for argument in arguments if argument != QUIET]
    parser = _parser(command, name)
    try:
        settings = command.parse(parser, [with_underscores(argument) for argument in arguments])
    except SystemExit as stop:  # --help has been printed
        return int(stop.code or 0)
    except (ArgumentError, ValueError, OSError) as error:  # OSError: of paths that are no names of files
        _say(f"{name}: error: {_with_dashes(str(error))}\n({name} --help shows all options, and examples)")
        return USAGE_ERROR
    check_installed(*extras)
    try:
        with warnings.catch_warnings(), _progress(is_quiet):
            warnings.showwarning = lambda message, *_: _say(f"{name}: warning: {message}")
            command.run(settings)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        remedy = f"; {_REMEDIES[error.errno]}" if isinstance(error, OSError) and error.errno in _REMEDIES else ""
        _say(f"{name}: error: {_as_options(str(error), parser)}{remedy}")
        return DATA_ERROR
    except (MemoryError, RuntimeError) as error:
        if not is_of_memory(error):
            raise
        _say(f"{name}: error: there must be memory for it; there is too little; take fewer or smaller images at once")
        return DATA_ERROR
    except KeyboardInterrupt as interrupt:
        _say(f"{name}: interrupted{interrupt}")
        return INTERRUPTED
    return 0


def _parser(command: ModuleType, name: str) -> "ArgumentParser":
    from jsonargparse import ArgumentParser, set_parsing_settings

    from depthq.cli.help import HelpFormatter

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=name,
        description=command.__doc__,
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,  # the preset is read ahead of the parser, which knows no abbreviations
    )
    parser.add_argument(QUIET, action="store_true", help="show no progress; errors, warnings and results are shown")
    return parser


@contextmanager
def _progress(is_quiet: bool) -> Iterator[None]:
    """Whether the command shows how far it has come; without the packages that do so there is nothing to tell."""
    if not is_installed("tqdm"):
        yield
        return
    from depthq.progress import quiet

    with quiet(is_quiet):
        yield


def _say(message: str) -> None:
    """Print to stderr, leaving stdout to results."""
    print(message, file=sys.stderr)


def _overview() -> str:
    verbs = "\n".join(f"  {verb:12} {what}" for verb, what in VERBS.items())
    return f"usage: depthq VERB ...\n\n{verbs}\n\nExamples and all options of a verb: depthq VERB --help"


def _as_options(message: str, parser: "ArgumentParser") -> str:
    """The remedies of a message as one types them here: on_bad_image="skip" as --on-bad-image skip, or not at all."""
    options = parser.get_defaults()
    choice = r', or pass (on_bad_image|background)="\w+"'
    message = re.sub(choice, lambda found: found.group() if found[1] in options else "", message)
    message = re.sub(r'\b(on_bad_image|background)="(\w+)"', r"--\1 \2", message)
    if "image_size" not in options and "crop" in options:
        message = re.sub(r"\b(at least|where|smaller|pass) image_size\b", r"\1 --crop", message)
    if "label_column" not in options:
        message = message.replace(", and pass label_column with it", "")
    names = "image_size|image_column|label_column"
    return _with_dashes(
        re.sub(rf"\b(?<!--)(pass (?:a smaller |an |the extension as )?)({names})\b", r"\1--\2", message)
    )


def _with_dashes(message: str) -> str:
    """Options as the documents spell them."""
    return re.sub(r"--[a-z][a-z0-9_]*", lambda name: name.group().replace("_", "-"), message)


def with_underscores(argument: str) -> str:
    """--num-codebooks=5 as --num_codebooks=5: options may be written either way."""
    return re.sub(r"^--[a-z][a-z0-9-]*", lambda name: "--" + name.group()[2:].replace("-", "_"), argument)
