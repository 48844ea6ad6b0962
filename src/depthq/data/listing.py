"""What lies in a folder of data: which files are its images, which of them belong to which split, what is left out.

Splits are told by names, in any case: of top-level folders for image files (training/...), of words in a file's or a
folder's name for parquet and tar files (train-00000-of-00002.parquet). Links are followed; each real file counts once,
under a folder of its own rather than behind a link, and for testing rather than for training.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from depthq.data.errors import DataError
from depthq.data.split import Split
from depthq.extras import explain_missing

SPLIT_NAMES = {
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
    "train": ("train", "training"),
}
"""By split, what it may be called."""
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MORE_SUFFIXES: tuple[str, ...] = (".avif", ".heic", ".heif", ".j2k", ".jp2", ".jxl", ".qoi", ".tga")
"""Of images that Pillow reads where it was built so, or has a plugin."""
_ROLES = {name: role for role, names in SPLIT_NAMES.items() for name in names}
_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_ROLES, key=len, reverse=True))})(?![a-z])")


Kind = Literal["image", "parquet", "tar"]


@dataclass(frozen=True)
class Listing:
    """The files of a folder of data."""

    root: Path | str
    """A folder, or a URL."""
    files: tuple[str, ...]
    """Paths relative to `root`, sorted, all of one kind."""
    kind: Kind
    splits: dict[str, tuple[str, ...]]
    """By "train", "test" or "validation" the files whose names say so."""
    notes: tuple[str, ...]
    """What is left out, and why."""

    def choose(self, split: Split) -> tuple[tuple[str, ...], bool, str]:
        """The files for a split, whether all of them are of that split, and where they come from, in words.

        Raises:
            DataError: If names do not tell which files are meant.
        """
        if split == "all":
            return self.files, True, str(self.root)
        test = next((role for role in ("test", "validation") if role in self.splits), None)
        if "train" in self.splits and test:
            files = self.splits["train" if split == "train" else test]
            return files, True, self._named(files)
        if not self.splits:
            return self.files, False, str(self.root)
        unnamed = self._unnamed()
        if len(self.splits) > 1 or unnamed:
            raise DataError(self._ambiguity(unnamed))
        (files,) = self.splits.values()
        return files, False, self._named(files)

    def left_out(self, split: Split) -> list[str]:
        """What is left out of all splits, and why, in words; nothing is if `split` is "all" but what is no data."""
        notes = list(self.notes)
        if split != "all" and "train" in self.splits:
            if {"test", "validation"} <= self.splits.keys():
                notes.append(f"{_num(self.splits['validation'])} in {self._named(self.splits['validation'])}")
            if unnamed := self._unnamed():
                notes.append(f"{_num(unnamed)} in {self._named(unnamed)}, which is named like no split")
        return notes

    def _unnamed(self) -> tuple[str, ...]:
        named = {file for files in self.splits.values() for file in files}
        return tuple(file for file in self.files if file not in named)

    def _ambiguity(self, unnamed: tuple[str, ...]) -> str:
        named = self._named(sum(self.splits.values(), ()))
        if "train" not in self.splits:
            beside = f" beside {self._named(unnamed)}" if unnamed else ""
            return (
                f"data with several splits must have one called train; got {named}{beside} in {self.root}; rename one, "
                "or give a single one as the source"
            )
        return (
            f"a data folder must have a split for training and one for testing, or none; got {named} beside "
            f"{self._named(unnamed)} in {self.root}; if these are classes, rename the one that is called like a split; "
            f"if they are no images to train on, give {self.root}/{named.split(', ')[0].rstrip(os.sep)} as the source"
        )

    def _named(self, files: tuple[str, ...]) -> str:
        """The top-level folders and files that these are in, at most four of them."""
        tops = list(dict.fromkeys(file.partition(os.sep)[0] + (os.sep if os.sep in file else "") for file in files))
        return ", ".join(tops[:4]) + (f" and {len(tops) - 4} more" if len(tops) > 4 else "")


def list_folder(root: Path) -> Listing:
    """What lies in a folder of images, or of parquet or tar files, hidden files apart.

    Raises:
        DataError: If it holds none of them, or several kinds, or a folder in it cannot be read.
    """
    kind, files, notes = _of_one_kind(list(_walk(root)), root)
    role_of = _role_of_image if kind == "image" else _role_of_shard
    files, num_again = _once(root, files, role_of)
    if num_again:
        notes = [f"{num_again} files reached twice, behind links", *notes]
    return _listing(root, kind, files, notes)


def list_url(url: str) -> Listing:
    """What lies behind a URL that fsspec opens: parquet or tar files.

    Raises:
        DataError: If it holds neither, or both, or cannot be reached.
    """
    with explain_missing():
        from fsspec.core import url_to_fs

    root = url.rstrip("/")
    try:
        system, path = url_to_fs(root)
        found = [os.path.relpath(file, path) for file in system.find(path)]
    except Exception as error:  # a file system of its own kind raises errors of its own kind
        raise DataError(f"data source must be reachable; got {url} ({error}); check address and network") from error
    if not found:
        raise DataError(f"data source must be reachable and hold files; got none at {url}; check address and network")
    kind, files, notes = _of_one_kind([file for file in found if not os.path.basename(file).startswith(".")], url)
    if kind == "image":
        raise DataError(
            f"data behind a URL must be parquet or tar files; got images in {url}; fetch the folder, or pack it"
        )
    return _listing(root, kind, files, notes)


def _of_one_kind(files: list[str], root: Path | str) -> tuple[Kind, list[str], list[str]]:
    """The data among some files, and of the others how many there are by their suffix."""
    readable = readable_suffixes()
    by_kind: dict[Kind, list[str]] = {"image": [], "parquet": [], "tar": []}
    others = Counter[str]()
    for file in files:
        suffix = suffix_of(file)
        if suffix in readable:
            by_kind["image"].append(file)
        elif suffix == ".parquet":
            by_kind["parquet"].append(file)
        elif suffix == ".tar":
            by_kind["tar"].append(file)
        else:
            others[suffix] += 1
    kinds: list[Kind] = [kind for kind, of_kind in by_kind.items() if of_kind]
    if len(kinds) > 1:
        first, second = (by_kind[kind][0] for kind in kinds[:2])
        raise DataError(
            f"a data folder must hold images, parquet files or tar files, not several kinds; got {first} and "
            f"{second} in {root}; give the subfolder or the file that is meant"
        )
    if not kinds:
        found = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(4))
        raise DataError(
            f"a data folder must hold images, parquet or tar files; got "
            f"{'other files, ' + found if found else 'nothing'} in {root}; check the path (image files end in "
            f"{' '.join(sorted(readable))})"
        )
    return kinds[0], by_kind[kinds[0]], notes_of(others)


def suffix_of(file: str) -> str:
    """Of a file's name, in lower case; "no suffix" where it has none."""
    return os.path.splitext(file)[1].lower() or "no suffix"


def notes_of(others: Counter[str]) -> list[str]:
    """How many files of each suffix give no image, in words."""
    why = dict.fromkeys(MORE_SUFFIXES, ", which this Pillow does not read")
    return [f"{count} of {suffix}{why.get(suffix, '')}" for suffix, count in sorted(others.items())]


def _listing(root: Path | str, kind: Kind, files: list[str], notes: list[str]) -> Listing:
    role_of = _role_of_image if kind == "image" else _role_of_shard
    in_order, splits = tuple(sorted(files)), {}
    for role in SPLIT_NAMES:
        if of_role := tuple(file for file in in_order if role_of(file) == role):
            splits[role] = of_role
    return Listing(root, in_order, kind, splits, tuple(notes))


def role_of_split(name: str) -> str | None:
    """ "train", "test" or "validation", if a split is called so."""
    return _ROLES.get(name.lower())


def _role_of_image(file: str) -> str | None:
    top, separator, _ = file.partition(os.sep)
    return role_of_split(top) if separator else None


def _role_of_shard(file: str) -> str | None:
    matches = (_WORD.search(part.lower()) for part in file.split(os.sep))
    return next((_ROLES[match[1]] for match in matches if match), None)


def readable_suffixes() -> set[str]:
    """Of image files, in lower case."""
    with explain_missing():
        from PIL import Image

    known = Image.registered_extensions()
    return {*IMAGE_SUFFIXES, *(suffix for suffix in MORE_SUFFIXES if known.get(suffix) in Image.OPEN)}


def _walk(root: Path) -> Iterator[str]:
    """Paths of all files below `root`, relative to it, but hidden ones: first those in folders, then behind links."""
    seen, folders, links = set(), [str(root)], []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            stat = os.stat(folder)
            if (stat.st_dev, stat.st_ino) in seen:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(
                f"folders of data must be readable; got {error}; allow it, or give another folder"
            ) from error
        prefix = "" if folder == str(root) else os.path.relpath(folder, root) + os.sep
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry.path)
            else:
                yield prefix + entry.name


def _once(root: Path, files: list[str], role_of: Callable[[str], str | None]) -> tuple[list[str], int]:
    """The files, each real one once, and how many were the same as another one."""
    order = {role: place for place, role in enumerate(SPLIT_NAMES)}  # what is for testing is not trained on
    by_identity: dict[object, str] = {}
    for file in sorted(files, key=lambda file: order.get(role_of(file) or "train", 0)):
        try:
            stat = os.stat(root / file)
            by_identity.setdefault((stat.st_dev, stat.st_ino), file)
        except OSError:  # a broken link: its image is bad, and named where it is read
            by_identity[file] = file
    return list(by_identity.values()), len(files) - len(by_identity)


def _num(files: tuple[str, ...]) -> str:
    return f"{len(files)} file{'s' if len(files) != 1 else ''}"
