"""Paths as people write them."""

import os
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """A path in which ~ is the user's home, wherever it was written; ~ and a name that no user has is a name."""
    return Path(os.path.expanduser(text))


def absolute_if_there(source: str) -> str:
    """A source of images that is a file or a folder here, as a path that holds from elsewhere, too."""
    path = user_path(source)
    return str(path.absolute()) if source != "bundled" and path.exists() else source
