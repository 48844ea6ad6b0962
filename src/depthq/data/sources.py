"""Where images come from: a folder, parquet files or a hub data set -> the encoded images of one split, or all.

Parquet files and hub data sets go through Hugging Face `datasets`, whose tables are memory-mapped; of a folder only the
paths are held, and of tar files where in them each image lies. So an open set takes no memory to speak of, and worker
processes share it. Parquet and tar files may lie behind a URL that fsspec opens (s3://, hf://, https://, ...).

Where there are several splits, they are used as they are: `train`, and `test` or else `validation`, by any of the
names in `depthq.data.listing`. They are subfolders of a folder of images, files (or folders of files) whose names say
so in a folder of parquet or tar files, or splits of a hub data set. Where there is only one split, a tenth of the
images is for testing, and the others are for training: a hash of its id decides for each image alone, so that one more
moves no other. Where it leaves none for testing, the image of the lowest hash is.

"all" is every image there is, those of no split too: in the order of their paths; of parquet files and hub data
sets split after split, each in its own order.

An image's id is its path relative to the folder; in a parquet file its row, in a tar file its key (without a first /
and any ..), behind the file's path where the source is a folder of them (train/0000.parquet:17), and behind the split
in a hub data set (train:17).
Its label is what a column `label` of integers or strings says, the file .cls of a tar file, or another one that is
asked for; a folder of images has none.
"""

import difflib
import errno
import glob
import hashlib
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from depthq.data.columns import as_encoded, image_table, label_table
from depthq.data.errors import DataError
from depthq.data.listing import Listing, list_folder, list_url, role_of_split
from depthq.data.origin import Origin
from depthq.data.reading import EncodedImage
from depthq.data.split import Split
from depthq.data.tars import TarImages
from depthq.extras import explain_missing

if TYPE_CHECKING:  # `datasets` takes a second to import: load it where it is used
    from datasets import Dataset

_TEST_SHARE = 0.1
_HASH_BYTES = 8
_SAMPLED_BLOCKS, _BLOCK_BYTES = 64, 4096
_SECONDS_TO_CONNECT = 3


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are meant, by name; None: those that are called so, or the only one that can be."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class EncodedImages:
    """The encoded images of one split. Nothing is read before it is asked for."""

    table: "Dataset | TarImages | np.ndarray"
    """One column, `image`; of a folder the paths, as the system's bytes."""
    rows: np.ndarray
    """int64: the rows of `table` that belong to the split."""
    taken_from: str
    """Where the images of the split come from, in words."""
    left_out: tuple[str, ...] = ()
    """What of the source is in no split or cannot be used, and why, in words."""
    files: tuple[str, ...] = ()
    """What the rows came from, in order; empty for a folder, where each row is a file of its own."""
    first_rows: tuple[int, ...] = ()
    """The row of `table` at which each of `files` starts."""
    id_prefixes: tuple[str, ...] = ()
    """What the ids of the rows of each of `files` start with."""
    labels: "Dataset | None" = None
    """One column, `label`, with a row for each of `table`."""
    root: str = ""
    """The folder to which paths are ids, where each row is a file."""
    keys: Sequence[str] | None = None
    """What the row is called in its file, for each row of `table`; None: its number there."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label_type(self) -> type[int] | type[str] | None:
        """As the table declares it; None where there are no labels."""
        if self.labels is None:
            return None
        return str if "string" in self.labels.features["label"].dtype else int

    def read(self, indices: Sequence[int]) -> list[EncodedImage]:
        rows = self.rows[np.asarray(indices, dtype=np.int64)].tolist()
        if isinstance(self.table, np.ndarray):
            return [EncodedImage(path, path) for path in self._paths(rows)]
        cells = self.table[rows]["image"]
        return [self._encoded(row, cell) for row, cell in zip(rows, cells, strict=True)]

    def origins(self, indices: Sequence[int]) -> list[Origin]:
        rows = self.rows[np.asarray(indices, dtype=np.int64)].tolist()
        if not rows:
            return []
        ids = self._ids(rows)
        labels = [None] * len(rows) if self.labels is None else self.labels[rows]["label"]
        return [Origin(image, label) for image, label in zip(ids, labels, strict=True)]

    def names(self) -> list[str]:
        """What tells the images apart without opening them, also in another folder: of a file its name and bytes, of a
        row those of its file and its place there."""
        if self.files:
            files = [f"{Path(file).name}:{_num_bytes(file)}" for file in self.files]
            return [f"{files[file]}:{place}" for file, place in map(self._place, self.rows.tolist())]
        paths = self._paths(self.rows.tolist())
        return [f"{os.path.basename(path)}:{_num_bytes(path)}" for path in paths]

    def split(self, split: Split, source: str) -> "EncodedImages":
        """The images for training, or for testing, by the hash of what they are called.

        Raises:
            DataError: If there are none for it.
        """
        called = self._called(self.rows.tolist())
        shares = np.array([_hash_share(each) for each in called])
        is_test = (shares < _TEST_SHARE) | (shares == min(shares, default=0))
        rows = self.rows[is_test if split == "test" else ~is_test]
        if len(rows) == 0:
            raise DataError(
                f"data must hold images for both splits; got {len(called)} in {source}, none for {split}; add some"
            )
        share = "one in ten" if split == "test" else "nine in ten"
        return replace(self, rows=rows, taken_from=f"{self.taken_from}, {share} by a hash of its id")

    def _encoded(self, row: int, cell: object) -> EncodedImage:
        file, place = self._place(row)
        name = f"{f'row {place}' if self.keys is None else self.keys[row]} of {self.files[file]}"
        return EncodedImage(name, as_encoded(cell, name))

    def _ids(self, rows: list[int]) -> list[str]:
        names = self._called(rows)
        if self.keys is not None:
            names = [self._prefix(row) + _inside(self.keys[row]) for row in rows]
        return [_escaped(name) for name in names]  # as any file of codes can hold

    def _called(self, rows: list[int]) -> list[str]:
        """What ids are made of, and what a single split is cut by."""
        if self.keys is not None:
            return [self._prefix(row) + self.keys[row] for row in rows]
        if self.files:
            return [f"{self._prefix(row)}{self._place(row)[1]}" for row in rows]
        return [_escaped(Path(os.path.relpath(path, self.root)).as_posix()) for path in self._paths(rows)]

    def _prefix(self, row: int) -> str:
        return self.id_prefixes[self._place(row)[0]]

    def _paths(self, rows: list[int]) -> list[str]:
        assert isinstance(self.table, np.ndarray)
        return [os.fsdecode(path) for path in self.table[rows].tolist()]

    def _place(self, row: int) -> tuple[int, int]:
        """The number of the file that a row of `table` came from, and the row's in that file."""
        file = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return file, row - self.first_rows[file]


def _inside(key: str) -> str:
    """A key as a path that does not lead out of a folder."""
    return "/".join(part for part in key.lstrip("/").split("/") if part != "..")


def _escaped(name: str) -> str:
    """With bytes that are no text, which stand in a name as surrogates, as \\udc.."""
    return name.encode(errors="backslashreplace").decode()


def _hash_share(text: str) -> float:
    """A number in [0, 1) that looks drawn at random, always the same for the same text."""
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "big") / 2 ** (8 * _HASH_BYTES)


def _num_bytes(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # a broken link: its image is bad, and named where it is read
        return 0


def find_images(source: str, split: Split, columns: Columns = Columns()) -> EncodedImages:
    """The images of a split of `source`, or all.

    Args:
        source: A folder of images (searched recursively), a parquet or tar file, a folder of such files, by path or
            URL, or the name of a hub data set.
        split: "train", "test" or "all"; see the module's text.
        columns: Which columns of a table hold images and labels.

    Raises:
        DataError: If `source` does not exist or holds no images, a parquet file is cut off, there is no column of
            images, or names leave open which are meant.
    """
    if "://" in source:
        return _from_url(source, split, columns)
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        return _from_listing(list_folder(path), split, columns)
    if path.is_file():
        return _from_files([[str(path)]], split, split == "all", columns, str(path))
    if _looks_like_a_path(source):
        raise DataError(f"data source must exist; got {source}, which does not; check the path")
    return _from_hub(source, split, columns)


def count_encoded_images(source: str, columns: Columns = Columns()) -> int:
    """How many images `source` holds in all; `columns` and errors as in `find_images`."""
    path = Path(os.path.expanduser(source))
    if path.is_dir() and (listing := list_folder(path)).kind != "tar":
        if listing.kind == "image":
            return len(listing.files)
        return sum(_num_parquet_rows(str(path / file)) for file in listing.files)
    if path.is_file() and not _is_tar(source):
        return _num_parquet_rows(str(path))
    if path.exists() or "://" in source:
        return len(find_images(source, "all", columns))
    return sum(map(len, _load_hub(source).values()))


def _looks_like_a_path(source: str) -> bool:
    """Names on the hub are NAME or OWNER/NAME."""
    return (
        source.startswith(("/", ".", "~"))
        or source.count("/") > 1
        or source.endswith((".parquet", "/"))
        or "\\" in source
        or Path(source.split("/")[0]).is_dir()
    )


def _from_url(source: str, split: Split, columns: Columns) -> EncodedImages:
    if source.endswith((".parquet", ".tar")):
        return _from_files([[source]], split, split == "all", columns, source)
    return _from_listing(list_url(source), split, columns)


def _from_listing(listing: Listing, split: Split, columns: Columns) -> EncodedImages:
    root = str(listing.root)
    files, whole, taken_from = listing.choose(split)
    left_out = tuple(listing.left_out(split))
    if listing.kind == "image":
        if columns != Columns():
            raise DataError(
                f"image_column and label_column must be left out for image files; got {root}, a folder of them"
            )
        paths = np.array([os.fsencode(os.path.join(root, file)) for file in files])
        found = EncodedImages(paths, np.arange(len(paths)), taken_from, left_out, root=root)
        return found if whole else found.split(split, root)
    groups = [[f"{root}/{file}" for file in files]]
    if split == "all":
        roles = {file: role for role, of_role in listing.splits.items() for file in of_role}
        order = ["", *listing.splits]
        groups = [[f"{root}/{file}" for file in files if roles.get(file, "") == role] for role in order]
    return _from_files(list(filter(None, groups)), split, whole, columns, taken_from, left_out, root)


def _choose_table(splits: "dict[str, Dataset]", split: Split, source: str) -> tuple[str, bool, list[str]]:
    """The name of the table that holds `split`, whether all of it is that split, and the names that are of neither."""
    roles = {role: name for name in reversed(splits) if (role := role_of_split(name))}
    test = next((role for role in ("test", "validation") if role in roles), None)
    if "train" in roles:
        used = [roles["train"], *([roles[test]] if test else [])]
        name = roles[test] if test and split == "test" else roles["train"]
        return name, test is not None, [other for other in splits if other not in used]
    if len(splits) == 1:
        return next(iter(splits)), False, []
    raise DataError(
        f"data with several splits must have one called train; got {', '.join(splits)} in {source}; "
        "rename one, or give a single one as the source"
    )


def _from_files(
    groups: list[list[str]],
    split: Split,
    whole: bool,
    columns: Columns,
    taken_from: str,
    left_out: tuple[str, ...] = (),
    root: str | None = None,
) -> EncodedImages:
    """Images of parquet or tar files, those of one group with the same columns.

    Args:
        groups: The files, by path or URL.
        split: Which of the rows to take, where they are not `whole`.
        whole: Whether all rows are of the split.
        columns: Which columns are meant.
        taken_from: The files, in words.
        left_out: What else there is, in words.
        root: The folder that is the source; None: the one file is.
    """
    files = [file for group in groups for file in group]
    source = root or files[0]
    prefixes = ("",) if root is None else tuple(f"{file[len(root) + 1 :]}:" for file in files)
    if _is_tar(files[0]):
        table, counts, labels, keys = _open_tars(files, columns)
        left_out = (*left_out, *table.left_out)
    else:
        table, counts, (labels, no_labels) = _open_parquet(groups, columns, source)
        left_out, keys = (*left_out, *no_labels), None
    if not sum(counts):
        others = f" beside {'; '.join(left_out)}" if left_out else ""
        remedy = "add some" + (", or pass the extension as image_column" if _is_tar(files[0]) else "")
        raise DataError(f"data must hold images; got 0 in {source}{others}; {remedy}")
    found = EncodedImages(
        table,
        np.arange(sum(counts)),
        taken_from,
        left_out,
        tuple(files),
        _starts(counts),
        prefixes,
        labels,
        keys=keys,
    )
    return found if whole else found.split(split, source)


def _is_tar(file: str) -> bool:
    return file.lower().endswith(".tar")


def _open_tars(files: list[str], columns: Columns) -> "tuple[TarImages, list[int], Dataset | None, Sequence[str]]":
    with explain_missing():
        import datasets

    images = TarImages(files, columns.image, columns.label)
    kinds = {type(label).__name__ for label in images.labels if label is not None}
    labels = None
    if kinds:
        features = datasets.Features({"label": datasets.Value("int64" if kinds == {"int"} else "string")})
        labels = datasets.Dataset.from_dict({"label": images.labels}, features=features)
    return images, images.counts, labels, images.keys


def _open_parquet(
    groups: list[list[str]], columns: Columns, source: str
) -> "tuple[Dataset, list[int], tuple[Dataset | None, tuple[str, ...]]]":
    counts = [_num_parquet_rows(file) for group in groups for file in group]
    if not sum(counts):
        raise DataError(f"data must hold images; got 0 in {source}; add some")
    tables = [_load_parquet(group) for group in groups]
    table = _images(tables, [group[0] for group in groups], columns)
    return table, counts, label_table(tables, columns.label, source)


def _starts(counts: Sequence[int]) -> tuple[int, ...]:
    return tuple(np.cumsum([0, *counts[:-1]]).tolist())


def _load_parquet(files: list[str]) -> "Dataset":
    with explain_missing():
        import datasets
        from datasets.config import HF_DATASETS_CACHE

    datasets.disable_progress_bars()  # of its own copy of the table, which would stand between results
    # [ and * in a path are meant literally.
    patterns = [file if "://" in file else glob.escape(os.path.abspath(file)) for file in files]
    # Its key is a file's path and time of change, which archives and images of containers set as they like.
    cache = Path(HF_DATASETS_CACHE) / f"depthq-{_content_key(files)}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the cache of data sets must be writable; got: {error}; set HF_HOME to a folder that is"
        ) from error
    try:
        return datasets.load_dataset("parquet", data_files=patterns, split="train", cache_dir=str(cache))
    except Exception as error:  # a damaged table makes its readers raise anything
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise DataError(
                f"{cache} must be writable and have room; got: {cause}; set HF_HOME to such a folder"
            ) from error
        raise DataError(
            f"parquet files must be readable and have the same columns; got {error.__cause__ or error} in "
            f"{files[0]}{' or one beside it' if len(files) > 1 else ''}; write them anew"
        ) from error


def _content_key(files: list[str]) -> str:
    """Of the size, the end (a parquet file's footer is there) and blocks spread over each file."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with _opened(path) as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(size.to_bytes(8, "big"))
            for start in np.linspace(0, max(size - _BLOCK_BYTES, 0), _SAMPLED_BLOCKS).astype(int).tolist():
                file.seek(start)
                digest.update(file.read(_BLOCK_BYTES))
            file.seek(max(size - 16 * _BLOCK_BYTES, 0))
            digest.update(file.read())
    return digest.hexdigest()


@contextmanager
def _opened(file: str) -> "Iterator[BinaryIO]":
    """A file by path or URL, to be read."""
    with explain_missing():
        import fsspec

    with fsspec.open(file, "rb") as stream:
        yield cast(BinaryIO, stream)


def _num_parquet_rows(file: str) -> int:
    with explain_missing():
        import pyarrow
        import pyarrow.parquet

    try:
        with _opened(file) as stream:
            return pyarrow.parquet.read_metadata(stream).num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"data files must be whole parquet files; got {file}, which is cut off or of another kind "
            f"({error}); fetch or write it anew, or give the folder that holds the images"
        ) from error


def _from_hub(name: str, split: Split, columns: Columns) -> EncodedImages:
    splits = _load_hub(name)
    tables, whole, unused = list(splits.values()), True, []
    if split != "all":
        chosen, whole, unused = _choose_table(splits, split, name)
        tables = [splits[chosen]]
    counts = [len(table) for table in tables]
    if not sum(counts):
        raise DataError(f"data must hold images; got 0 in {name}; add some")
    files = tuple(f"hub data set {name}, split {table.split}" for table in tables)
    prefixes = tuple(f"{table.split}:" for table in tables)
    table = _images(tables, [name] * len(tables), columns)
    labels, no_labels = label_table(tables, columns.label, name)
    left_out = ((f"split {', '.join(unused)}",) if unused else ()) + no_labels
    taken_from = ", ".join(f"split {table.split}" for table in tables) + f" of {name}"
    rows = np.arange(sum(counts))
    found = EncodedImages(table, rows, taken_from, left_out, files, _starts(counts), prefixes, labels)
    return found if whole else found.split(split, name)


def _check_hub(name: str) -> None:
    """Raise DataError at once, where the hub's own machinery would try again and again for long."""
    from datasets.config import HF_DATASETS_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE or getproxies() or (Path(HF_DATASETS_CACHE) / name.replace("/", "___")).is_dir():
        return
    address = urlsplit(HF_ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), _SECONDS_TO_CONNECT).close()
    except OSError as error:
        close = difflib.get_close_matches(name, ["bundled"])
        hint = f"did you mean {close[0]}?" if close else "check the spelling and the network"
        raise DataError(
            f"data source must be 'bundled', an existing folder or parquet file, or a hub data set; got {name}, which "
            f"is not here, and the hub cannot be reached ({error}); {hint}"
        ) from error


def _load_hub(name: str) -> dict[str, "Dataset"]:
    with explain_missing():
        import datasets
        from datasets.exceptions import DatasetsError

    _check_hub(name)
    try:
        splits = datasets.load_dataset(name)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: a set that needs a script
        raise DataError(
            f"data source must be 'bundled', an existing folder or parquet file, or a hub data set; got "
            f"{name}, neither here nor loadable from the hub ({error}); check the spelling and the network"
        ) from error
    return {str(key): table for key, table in splits.items()}


def _images(tables: list["Dataset"], sources: list[str], columns: Columns) -> "Dataset":
    """The images of tables one after the other."""
    with explain_missing():
        import datasets

    found = [image_table(table, columns.image, source) for table, source in zip(tables, sources, strict=True)]
    return datasets.concatenate_datasets(found)
