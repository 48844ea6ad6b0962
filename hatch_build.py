"""README.md as a package index shows it: without the links and pictures that only hold in the repository."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+(\*[^*]+\*\n+)?", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)([^)#]*)[^)]*\)")


class ReadmeHook(MetadataHookInterface):
    def update(self, metadata: dict) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_an_index(text)}


def for_an_index(text: str) -> str:
    """Pictures with their captions go; of a link its words stay, and its file where they do not name it."""
    text = _PICTURE.sub("", text)
    return _LINK.sub(lambda link: link[1] if link[2] in link[1] else f"{link[1]} ({link[2]})", text)
