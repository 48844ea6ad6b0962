"""Where images come from: a folder, parquet files or a hub data set -> the encoded images of one split, or all.

All go through Hugging Face `datasets`. Its tables are memory-mapped (of a folder, only the paths are held),
so an open set takes no memory to speak of, and worker processes share it.

Where there are several splits, they are used as they are: `train`, and `test` or else `validation`, `valid`
or `val`. They are subfolders of a folder of images, files (or folders of files) whose names start so in a
folder of parquet files, or splits of a hub data set. Where there is only one split, a tenth of the images is for
testing, and the others are for training: a hash of its id decides for each image alone, so that one more moves no
other. Where it leaves none for testing, the image of the lowest hash is.

"all" is every image there is, those of no split too: in the order of their paths; of parquet files and hub data
sets split after split, each in its own order.

An image's id is its path relative to the folder; in a parquet file its row, behind the file's path where the
source is a folder of them (train/0000.parquet:17), and behind the split in a hub data set (train:17). Its label is
what a column `label` of integers or strings says; a folder of images has none.
"""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from depthq.data.errors import DataError
from depthq.data.origin import Origin
from depthq.data.reading import EncodedImage
from depthq.data.split import Split
from depthq.extras import explain_missing

if TYPE_CHECKING:  # `datasets` takes a second to import: load it where it is used
    from datasets import Dataset

T = TypeVar("T")

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_HELD_OUT = ("test", "validation", "valid", "val")  # the first that exists is the test split
_SPLIT_PREFIX = re.compile(r"(train|test|validation|valid|val)(?![a-z])")
_TEST_SHARE = 0.1
_HASH_BYTES = 8
_LABEL_TYPE = re.compile(r"u?int\d+|(large_)?string")


@dataclass(frozen=True)
class EncodedImages:
    """The encoded images of one split. Nothing is read before it is asked for."""

    table: "Dataset"
    """One column, `image`, of {"bytes", "path"}."""
    rows: np.ndarray
    """int64: the rows of `table` that belong to the split."""
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

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label_type(self) -> type[int] | type[str] | None:
        """As the table declares it; None where there are no labels."""
        if self.labels is None:
            return None
        return str if "string" in self.labels.features["label"].dtype else int

    def read(self, indices: Sequence[int]) -> list[EncodedImage]:
        rows = self.rows[np.asarray(indices)]
        cells = self.table[rows.tolist()]["image"]
        return [self._encoded(int(row), cell or {}) for row, cell in zip(rows, cells, strict=True)]

    def origins(self, indices: Sequence[int]) -> list[Origin]:
        rows = self.rows[np.asarray(indices, dtype=np.int64)].tolist()
        if not rows:
            return []
        ids = self._row_ids(rows) if self.files else self._file_ids(rows)
        labels = [None] * len(rows) if self.labels is None else self.labels[rows]["label"]
        return [Origin(image, label) for image, label in zip(ids, labels, strict=True)]

    def names(self) -> list[str]:
        """What tells the images apart without opening them, also in another folder: of a file its name and bytes, of a
        row those of its file and its place there."""
        if self.files:
            files = [f"{Path(file).name}:{_num_bytes(file)}" for file in self.files]
            return [f"{files[file]}:{place}" for file, place in map(self._place, self.rows.tolist())]
        paths = [cell["path"] for cell in self.table[self.rows.tolist()]["image"]]
        return [f"{os.path.basename(path)}:{_num_bytes(path)}" for path in paths]

    def split(self, split: Split, source: str) -> "EncodedImages":
        """The images for training, or for testing, by the hash of their ids.

        Raises:
            DataError: If there are none for it.
        """
        ids = self._row_ids(self.rows.tolist()) if self.files else self._file_ids(self.rows.tolist())
        shares = np.array([_hash_share(each) for each in ids])
        is_test = (shares < _TEST_SHARE) | (shares == min(shares, default=0))
        rows = self.rows[is_test if split == "test" else ~is_test]
        if len(rows) == 0:
            raise DataError(
                f"data must hold images for both splits; got {len(ids)} in {source}, none for {split}; add some"
            )
        return replace(self, rows=rows)

    def _encoded(self, row: int, cell: dict) -> EncodedImage:
        content = cell.get("bytes") or cell.get("path") or b""
        if not self.files:
            return EncodedImage(str(content), content)
        file, place = self._place(row)
        return EncodedImage(f"row {place} of {self.files[file]}", content)

    def _row_ids(self, rows: list[int]) -> list[str]:
        return [f"{self.id_prefixes[file]}{place}" for file, place in map(self._place, rows)]

    def _file_ids(self, rows: list[int]) -> list[str]:
        paths = (cell["path"] for cell in self.table[rows]["image"])
        return [Path(os.path.relpath(path, self.root)).as_posix() for path in paths]

    def _place(self, row: int) -> tuple[int, int]:
        """The number of the file that a row of `table` came from, and the row's in that file."""
        file = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return file, row - self.first_rows[file]


def _hash_share(text: str) -> float:
    """A number in [0, 1) that looks drawn at random, always the same for the same text."""
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "big") / 2 ** (8 * _HASH_BYTES)


def _num_bytes(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # a broken link: its image is bad, and named where it is read
        return 0


def find_images(source: str, split: Split) -> EncodedImages:
    """The images of a split of `source`, or all.

    Args:
        source: A folder of images (searched recursively), a parquet file, a folder of parquet files, or the
            name of a hub data set.
        split: "train", "test" or "all"; see the module's text.

    Raises:
        DataError: If `source` does not exist or holds no images, a parquet file is cut off, or there is no
            column of images.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path, split)
    if path.is_file():
        return _from_parquet([[path]], split, whole=split == "all")
    if _looks_like_a_path(source):
        raise DataError(f"data source must exist; got {source}, which does not; check the path")
    return _from_hub(source, split)


def count_encoded_images(source: str) -> int:
    """How many images `source` holds in all; raises DataError as `find_images`."""
    path = Path(source).expanduser()
    if path.is_dir():
        images, parquets = _list_images(path)
        return len(images) or sum(_num_parquet_rows(path / file) for file in parquets)
    if path.is_file():
        return _num_parquet_rows(path)
    return sum(map(len, _load_hub(source).values()))


def _looks_like_a_path(source: str) -> bool:
    return source.startswith(("/", ".", "~")) or source.count("/") > 1 or source.endswith((".parquet", "/"))


def _from_folder(root: Path, split: Split) -> EncodedImages:
    images, parquets = _list_images(root)
    if images:
        return _from_image_files(root, images, split)
    if split == "all":
        names = sorted({_split_of_parquet(file) or "" for file in parquets})
        groups = [[file for file in parquets if (_split_of_parquet(file) or "") == name] for name in names]
        whole = True
    else:
        files, whole = _choose_split(_group(parquets, _split_of_parquet), split, str(root))
        groups = [files]
    return _from_parquet([[root / file for file in files] for files in groups], split, whole, root)


def _list_images(root: Path) -> tuple[list[str], list[str]]:
    """Paths of image files or of parquet files below `root`, relative to it and sorted: one list is empty."""
    files = _list_files(root)
    images = [file for file in files if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES]
    parquets = [file for file in files if file.lower().endswith(".parquet")]
    if images and parquets:
        raise DataError(
            f"a data folder must hold images or parquet files, not both; got {images[0]} and {parquets[0]} "
            f"in {root}; give the subfolder or the file that is meant"
        )
    if images or parquets:
        return images, parquets
    found = "nothing" if not files else f"{len(files)} other files, such as {files[0]}"
    raise DataError(
        f"a data folder must hold images or parquet files; got {found} in {root}; check the path "
        f"(image files end in {' '.join(IMAGE_SUFFIXES)})"
    )


def _list_files(root: Path) -> list[str]:
    """Paths of all files below `root`, relative to it and sorted; hidden ones are left out."""
    files = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        prefix = "" if folder == str(root) else os.path.relpath(folder, root) + os.sep
        files += [prefix + name for name in names if not name.startswith(".")]
    return sorted(files)


def _from_image_files(root: Path, images: list[str], split: Split) -> EncodedImages:
    with explain_missing():
        import datasets

    files, whole = images, True
    if split != "all":
        files, whole = _choose_split(_group(images, _split_of_image), split, str(root))
    paths = [os.path.join(root, file) for file in files]
    table = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image(decode=False))
    found = EncodedImages(table, np.arange(len(table)), root=str(root))
    return found if whole else found.split(split, str(root))


def _split_of_image(file: str) -> str | None:
    top, separator, _ = file.partition(os.sep)
    return top.lower() if separator and top.lower() in ("train", *_HELD_OUT) else None


def _split_of_parquet(file: str) -> str | None:
    matches = (_SPLIT_PREFIX.match(part.lower()) for part in file.split(os.sep))
    return next((match[1] for match in matches if match), None)


def _group(files: list[str], split_of: Callable[[str], str | None]) -> dict[str, list[str]]:
    """The files of each split; files of no split are left out where there is any, else they are all one."""
    groups: dict[str, list[str]] = {}
    for file in files:
        name = split_of(file)
        if name is not None:
            groups.setdefault(name, []).append(file)
    return groups or {"all": files}


def _choose_split(groups: dict[str, T], split: Split, source: str) -> tuple[T, bool]:
    """The group that holds `split`, and whether all of it is that split."""
    held_out = next((name for name in _HELD_OUT if name in groups), None)
    if "train" in groups and held_out:
        return groups["train" if split == "train" else held_out], True
    if "train" in groups:
        return groups["train"], False
    if len(groups) == 1:
        return next(iter(groups.values())), False
    raise DataError(
        f"data with several splits must have one called train; got {', '.join(groups)} in {source}; "
        "rename one, or give a single one as the source"
    )


def _from_parquet(groups: list[list[Path]], split: Split, whole: bool, root: Path | None = None) -> EncodedImages:
    """Images of parquet files, those of one group with the same columns.

    Args:
        groups: The files.
        split: Which of the rows to take, where they are not `whole`.
        whole: Whether all rows are of the split.
        root: The folder that is the source; None: the one file is.
    """
    files = [file for group in groups for file in group]
    counts = [_num_parquet_rows(file) for file in files]
    if not sum(counts):
        raise DataError(f"data must hold images; got 0 in {root or files[0]}; add some")
    prefixes = ("",) if root is None else tuple(f"{file.relative_to(root).as_posix()}:" for file in files)
    table, labels = _joined([_load_parquet(group) for group in groups], [str(group[0]) for group in groups])
    found = EncodedImages(table, np.arange(sum(counts)), tuple(map(str, files)), _starts(counts), prefixes, labels)
    return found if whole else found.split(split, str(root or files[0]))


def _starts(counts: Sequence[int]) -> tuple[int, ...]:
    return tuple(np.cumsum([0, *counts[:-1]]).tolist())


def _load_parquet(files: list[Path]) -> "Dataset":
    with explain_missing():
        import datasets
        from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()  # of its own copy of the table, which would stand between results
    patterns = [glob.escape(str(file.absolute())) for file in files]  # [ and * in a path are meant literally
    try:
        return datasets.load_dataset("parquet", data_files=patterns, split="train")
    except (DatasetsError, OSError, ValueError) as error:
        raise DataError(
            f"parquet files must be readable and have the same columns; got {error.__cause__ or error} in "
            f"{files[0]}{' or one beside it' if len(files) > 1 else ''}; write them anew"
        ) from error


def _num_parquet_rows(file: Path) -> int:
    with explain_missing():
        import pyarrow
        import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(file).num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"data files must be whole parquet files; got {file}, which is cut off or of another kind "
            f"({error}); fetch or write it anew, or give the folder that holds the images"
        ) from error


def _from_hub(name: str, split: Split) -> EncodedImages:
    splits = _load_hub(name)
    tables, whole = list(splits.values()), True
    if split != "all":
        table, whole = _choose_split(splits, split, name)
        tables = [table]
    counts = [len(table) for table in tables]
    if not sum(counts):
        raise DataError(f"data must hold images; got 0 in {name}; add some")
    files = tuple(f"hub data set {name}, split {table.split}" for table in tables)
    prefixes = tuple(f"{table.split}:" for table in tables)
    table, labels = _joined(tables, [name] * len(tables))
    found = EncodedImages(table, np.arange(sum(counts)), files, _starts(counts), prefixes, labels)
    return found if whole else found.split(split, name)


def _load_hub(name: str) -> dict[str, "Dataset"]:
    with explain_missing():
        import datasets
        from datasets.exceptions import DatasetsError

    try:
        splits = datasets.load_dataset(name)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: a set that needs a script
        raise DataError(
            f"data source must be 'bundled', an existing folder or parquet file, or a hub data set; got "
            f"{name}, neither here nor loadable from the hub ({error}); check the spelling and the network"
        ) from error
    return {str(key): table for key, table in splits.items()}


def _joined(tables: list["Dataset"], sources: list[str]) -> tuple["Dataset", "Dataset | None"]:
    """The images of tables one after the other; and their labels, if all tables have some of one type."""
    with explain_missing():
        import datasets

    images = datasets.concatenate_datasets([_image_column(*each) for each in zip(tables, sources, strict=True)])
    kinds = [table.features.get("label") for table in tables]
    if not _LABEL_TYPE.fullmatch(getattr(kinds[0], "dtype", "")) or any(kind != kinds[0] for kind in kinds):
        return images, None
    return images, datasets.concatenate_datasets([table.select_columns(["label"]) for table in tables])


def _image_column(table: "Dataset", source: str) -> "Dataset":
    """`table` with its first image column alone, called `image`, and still encoded."""
    with explain_missing():
        import datasets

    columns = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise DataError(
            f"data must have a column of images; got the columns {', '.join(table.column_names)} in "
            f"{source}; cast one to datasets.Image() and save it again"
        )
    table = table.select_columns(columns[:1])
    if columns[0] != "image":
        table = table.rename_column(columns[0], "image")
    return table.cast_column("image", datasets.Image(decode=False))
