"""Images in tar files as webdataset writes them: files of one sample follow each other and share the name up to its
first dot (000123.jpg, 000123.cls); extensions are compared in lower case. They are read from where they lie; nothing is
unpacked or copied."""

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np

from depthq.data.columns import IMAGE_NAMES
from depthq.data.errors import DataError
from depthq.data.listing import notes_of, readable_suffixes, suffix_of
from depthq.extras import explain_missing

LABEL_NAME = "cls"
"""What webdataset calls a class's number."""
_MOST_LABEL_BYTES = 2**12

Label = int | str | None
_Parts = dict[str, tuple[tarfile.TarInfo, str | None]]
"""By extension, in lower case, the members of a sample; with its text where the extension is that of labels."""


@dataclass(frozen=True)
class _Image:
    """Where an encoded image lies."""

    offset: int
    size: int
    key: str
    label: Label


class TarImages:
    """The images of tar files, in their order, as a table with one column, `image`.

    Args:
        files: Paths, or URLs that fsspec opens.
        image: Extension of the images; None: the only one that images have.
        label: Extension of the labels; None: "cls", if there are such.

    Raises:
        DataError: If a file is no whole tar file, or extensions leave open which files are meant.
    """

    def __init__(self, files: Sequence[str], image: str | None = None, label: str | None = None):
        image, label = image and image.lower(), label and label.lower()
        self.files = list(files)
        others = Counter[str]()
        found = [list(_images_of(file, image, label, others)) for file in self.files]
        self.left_out = notes_of(others)
        """Which members give no image, in words; not of labels and texts that a sample has beside its image."""
        self.counts = [len(of_file) for of_file in found]
        images = [each for of_file in found for each in of_file]
        self.ids = [id_ for of_file in found for id_ in _ids([each.key for each in of_file])]
        """What tells each image from the others of its file."""
        self.labels = _of_one_type([each.label for each in images], label or LABEL_NAME, self.files[0])
        if label is not None and all(each.label is None for each in images):
            raise DataError(
                f"label_column must be an extension of files in the tar files; got {label!r}, of none there"
            )
        self._file = np.repeat(np.arange(len(self.files)), self.counts)
        self._span = np.array([(each.offset, each.offset + each.size) for each in images], np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Sequence[int]) -> dict[str, list[bytes]]:
        """The encoded images of these rows."""
        spans = self._span[np.asarray(rows, np.int64)]
        files = [self.files[file] for file in self._file[np.asarray(rows, np.int64)].tolist()]
        return {"image": _read(files, *spans.T.tolist())}


def _read(files: list[str], starts: list[int], ends: list[int]) -> list[bytes]:
    """A stretch of each file."""
    with explain_missing():
        from fsspec.core import url_to_fs

    if not files:
        return []
    found = [url_to_fs(file) for file in files]
    try:
        contents = found[0][0].cat_ranges([path for _, path in found], starts, ends, on_error="raise")
    except OSError as error:
        raise DataError(f"tar files must stay as they are while they are read; got: {error}; start again") from error
    for file, content, start, end in zip(files, contents, starts, ends, strict=True):
        if len(content) != end - start:
            raise DataError(
                f"tar files must be read in parts; got {len(content)} bytes of {file} for {end - start}; "
                "take a server that serves ranges, or fetch the file"
            )
    return contents


def _images_of(file: str, image: str | None, label: str | None, others: Counter[str]) -> Iterator[_Image]:
    """The images of a file; `others` counts the members that give none."""
    suffixes = readable_suffixes()
    for key, parts in _samples(file, label or LABEL_NAME, others):
        found = [name for name in parts if (name == image if image else f".{name}" in suffixes)]
        if len(found) > 1:
            found = [name for name in found if name in IMAGE_NAMES]
        if len(found) > 1:
            raise DataError(
                f"tar files must tell which files are the images; got {key} with {', '.join(parts)} in {file}; "
                "pass the extension as image_column"
            )
        others.update(_others(parts, found[0] if found else None, suffixes))
        if found:
            member, _ = parts[found[0]]
            _, text = parts.get(label or LABEL_NAME, (None, None))
            yield _Image(member.offset_data, member.size, key, text)


def _others(parts: _Parts, taken: str | None, suffixes: set[str]) -> Iterator[str]:
    """Of each member of a sample that gives no image its suffix, and why where that may surprise."""
    for extension, (member, _) in parts.items():
        suffix = suffix_of(member.name)
        if taken is None:
            is_dotted = suffix in suffixes and f".{extension}" != suffix
            yield f"{suffix} with more dots in the name" if is_dotted else suffix
        elif suffix in suffixes and extension != taken:
            yield f"{suffix} beside another image of the sample"


def _samples(file: str, label: str, others: Counter[str]) -> Iterator[tuple[str, _Parts]]:
    """Key and members of each sample."""
    key, parts = None, {}
    for member, text in _members(file, label, others):
        folder, slash, name = member.name.rpartition("/")
        base, _, extension = name.partition(".")
        extension = extension.lower()
        if folder + slash + base == key and extension in parts:
            raise DataError(
                "files of a sample must have different extensions, in any case; got "
                f"{parts[extension][0].name} and {member.name} in {file}; rename one of them"
            )
        if folder + slash + base != key:
            if key is not None:
                yield key, parts
            key, parts = folder + slash + base, {}
        parts[extension] = member, text
    if key is not None:
        yield key, parts


def _ids(keys: Sequence[str]) -> Iterator[str]:
    """Keys as paths that do not lead out of a folder, each once: the second `a` is called `a(2)`."""
    counts = Counter[str]()
    for key in keys:
        inside = name = "/".join(part for part in key.lstrip("/").split("/") if part != "..")
        while counts[name]:
            counts[inside] += 1
            name = f"{inside}({counts[inside]})"
        counts[name] += 1
        yield name


def _members(file: str, label: str, others: Counter[str]) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    with explain_missing():
        import fsspec

    try:
        with fsspec.open(file, "rb") as opened:
            stream = cast(BinaryIO, opened)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    name = member.name.rpartition("/")[2]
                    if member.isdir() or name.startswith("."):
                        continue
                    if not member.isfile():
                        others[f"{suffix_of(name)} behind a link"] += 1
                        continue
                    text = None
                    if name.partition(".")[2].lower() == label:
                        if member.size <= _MOST_LABEL_BYTES:
                            text = tar.extractfile(member).read().decode().strip()  # type: ignore[union-attr]
                        else:
                            others[f"{suffix_of(name)} too long for a label"] += 1
                    yield member, text
                stream.seek(tar.offset)
                if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # else cut off between two members
                    raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"tar files must be whole and not compressed; got {file} ({error}); fetch or write it anew"
        ) from error


def _of_one_type(labels: list[Label], name: str, file: str) -> list[Label]:
    """As whole numbers if all are, and fit into 64 bits; else as strings, which a class's number must not be."""
    wrong = next((label for label in labels if label is not None and not _is_number(str(label))), None)
    if wrong is None:
        return [None if label is None else int(label) for label in labels]
    if name == LABEL_NAME:
        raise DataError(
            f"files .{LABEL_NAME} must hold whole numbers, -2**63..2**63 - 1; got {wrong!r} in {file} or one beside "
            "it; give such files another extension, and pass label_column with it"
        )
    return labels


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and -(2**63) <= int(text) < 2**63
