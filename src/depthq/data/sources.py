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
and any ..; of several with the same key the second is called key(2)), behind the file's path where the source is a
folder of them (train/0000.parquet:17), and behind the split in a hub data set (train:17).
Its label is what a column `label` of integers or strings says, the file .cls of a tar file, or another one that is
asked for; a folder of images has none.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depthq.data.columns import image_table, label_table
from depthq.data.encoded import EncodedImages
from depthq.data.errors import DataError
from depthq.data.hub import load_hub
from depthq.data.listing import Listing, list_folder, list_url, role_of_split
from depthq.data.parquet import load_parquet, num_parquet_rows
from depthq.data.split import Split
from depthq.data.tars import TarImages
from depthq.extras import explain_missing

if TYPE_CHECKING:  # `datasets` takes a second to import: load it where it is used
    from datasets import Dataset


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are meant, by name; None: those that are called so, or the only one that can be."""

    image: str | None = None
    label: str | None = None


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
    """How many images `source` holds in all, found without opening any; `columns`, which matter in tar files alone, and
    errors as in `find_images`."""
    path, is_url = Path(os.path.expanduser(source)), "://" in source
    if not is_url and not path.exists():
        return sum(map(len, load_hub(source).values()))
    files = [source if is_url else str(path)]
    if path.is_dir() or (is_url and not _is_a_shard(source)):
        listing = list_url(source) if is_url else list_folder(path)
        if listing.kind == "image":
            return len(listing.files)
        files = [f"{listing.root}/{file}" for file in listing.files]
    if _is_tar(files[0]):
        return sum(TarImages(files, columns.image, columns.label).counts)
    return sum(map(num_parquet_rows, files))


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
    if _is_a_shard(source):
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
        table, counts, labels, ids = _open_tars(files, columns)
        left_out = (*left_out, *table.left_out)
    else:
        table, counts, (labels, no_labels) = _open_parquet(groups, columns, source)
        left_out, ids = (*left_out, *no_labels), None
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
        ids=ids,
    )
    return found if whole else found.split(split, source)


def _is_a_shard(url: str) -> bool:
    return url.lower().endswith((".parquet", ".tar"))


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
    return images, images.counts, labels, images.ids


def _open_parquet(
    groups: list[list[str]], columns: Columns, source: str
) -> "tuple[Dataset, list[int], tuple[Dataset | None, tuple[str, ...]]]":
    counts = [num_parquet_rows(file) for group in groups for file in group]
    if not sum(counts):
        raise DataError(f"data must hold images; got 0 in {source}; add some")
    tables = [load_parquet(group) for group in groups]
    table = _images(tables, [group[0] for group in groups], columns)
    return table, counts, label_table(tables, columns.label, source)


def _starts(counts: Sequence[int]) -> tuple[int, ...]:
    return tuple(np.cumsum([0, *counts[:-1]]).tolist())


def _from_hub(name: str, split: Split, columns: Columns) -> EncodedImages:
    splits = load_hub(name)
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


def _images(tables: list["Dataset"], sources: list[str], columns: Columns) -> "Dataset":
    """The images of tables one after the other."""
    with explain_missing():
        import datasets

    found = [image_table(table, columns.image, source) for table, source in zip(tables, sources, strict=True)]
    return datasets.concatenate_datasets(found)
