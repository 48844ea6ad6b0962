"""The encoded images of one split: what they are called, their labels, and which of them are for testing."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depthq.data.columns import as_encoded
from depthq.data.errors import DataError
from depthq.data.origin import Origin
from depthq.data.reading import EncodedImage
from depthq.data.split import Split
from depthq.data.tars import TarImages

if TYPE_CHECKING:  # `datasets` takes a second to import: load it where it is used
    from datasets import Dataset

_TEST_SHARE = 0.1
_HASH_BYTES = 8


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
    ids: Sequence[str] | None = None
    """What tells the row from the others of its file, for each row of `table`; None: its number there."""

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
        ids = [_escaped(name) for name in self._called(rows)]  # as any file of codes can hold
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
        name = f"{f'row {place}' if self.ids is None else self.ids[row]} of {self.files[file]}"
        return EncodedImage(name, as_encoded(cell, name))

    def _called(self, rows: list[int]) -> list[str]:
        """Ids, but for bytes in them that are no text; what a single split is cut by."""
        if self.ids is not None:
            return [self._prefix(row) + self.ids[row] for row in rows]
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
