"""Settings that the config.yaml of a run or of a prior keeps, for what goes on with it."""

from argparse import ArgumentError
from collections.abc import Set
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser


def checked(
    settings: dict[str, Any], parser: ArgumentParser, file: Path, known: Set[str], needed: Set[str], **required: str
) -> dict[str, Any]:
    """The settings that a file holds, if they are whole and typed.

    Args:
        settings: As read.
        parser: That has options of these names.
        file: Where they were read from.
        known: What there may be.
        needed: What there must be.
        required: Of options that the parser asks for besides.

    Raises:
        ValueError: If there are others, some are missing, or one is of another type.
    """
    missing, unknown = sorted(needed - settings.keys()), sorted(settings.keys() - known)
    if missing or unknown:
        what = [f"it lacks {', '.join(missing)}"] if missing else []
        what += [f"it has {', '.join(unknown)}"] if unknown else []
        raise ValueError(f"{file} must name each setting of a run once; {' and '.join(what)}; put it back as it was")
    defaults = parser.get_defaults()
    for name, value in settings.items():
        is_flag = isinstance(defaults.get(name), bool)
        if is_flag and not isinstance(value, bool):  # jsonargparse takes 0 and 1
            raise ValueError(f"{file} must give {name} as it was written; got {value!r}; put it back")
    try:
        parser.parse_object({**settings, **required})
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"{file} must be as it was written; got: {error}; put it back") from error
    return settings
