"""Paths as people write them."""

from pathlib import Path


def user_path(text: str | Path) -> Path:
    """A path in which ~ is the user's home, wherever it was written."""
    return Path(text).expanduser()


def absolute_if_there(source: str) -> str:
    """A source of images that is a file or a folder here, as a path that holds from elsewhere, too."""
    path = Path(source).expanduser()
    return str(path.absolute()) if source != "bundled" and path.exists() else source
