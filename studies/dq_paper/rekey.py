"""Rename results from their former keys, hashes of whole experiments, to those of `studies.dq_paper.keys`.

example:
  python -m studies.dq_paper.rekey studies/dq_paper/results

Contents stay as they are. Files that have their name already are left alone, so it can be run again, also after it was
killed; files whose name does not fit their content are named and left alone.
"""

import hashlib
import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depthq.files import replacing
from studies.dq_paper.keys import key_of


def former_key_of(content: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of everything that an experiment says, defaults included."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def rekey(file: Path) -> bool:
    """Rename a result, and the picture beside it, to the key that it has now.

    The picture is copied first, and dropped last: whenever this is killed, the result is whole under one of its names,
    and another run ends what this one began.

    Returns:
        Whether it had its former name.

    Raises:
        ValueError: If the file is no result under its former or its new name, or the new name is taken.
    """
    try:
        content = json.loads(file.read_text())["experiment"]
        former, key = former_key_of(content), key_of(content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} must be a result; got: {error!r}; left as it is") from error
    name, _, found = file.stem.rpartition("-")
    if found not in (former, key):
        raise ValueError(f"{file} must end in {former} or {key}; got {found}; left as it is")
    before, after = (file.with_name(f"{name}-{word}.json") for word in (former, key))
    if file == before != after:
        _rename(before, after)
    if before != after and after.with_suffix(".png").exists():
        before.with_suffix(".png").unlink(missing_ok=True)
    return file == before != after


def _rename(before: Path, after: Path) -> None:
    if after.exists():
        raise ValueError(f"{after} must not be there yet; got it beside {before}; delete one of them")
    if (picture := before.with_suffix(".png")).exists():
        with replacing(after.with_suffix(".png")) as stream:
            stream.write(picture.read_bytes())
    before.rename(after)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code, 1 if any file was left as it is."""
    parser = ArgumentParser(
        "python -m studies.dq_paper.rekey", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    default = Path(__file__).parent / "results"
    parser.add_argument("folder", type=Path, nargs="?", default=default, help="of results; by default the committed")
    folder = parser.parse_args(arguments).folder
    renamed, problems = 0, 0
    for file in sorted(folder.glob("*.json")):
        try:
            renamed += rekey(file)
        except ValueError as error:
            problems += 1
            print(f"python -m studies.dq_paper.rekey: warning: {error}", file=sys.stderr)
    print(f"{renamed} results renamed in {folder}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
