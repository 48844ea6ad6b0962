"""Codes of a batch of images, beside what is known of the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from depthq.codes.codes import Codes

Label = int | str | None


@dataclass(frozen=True)
class CodesBatch:
    """Codes of B images, and what is known of the images. None stands for what the source does not have.

    Args:
        codes: Of B images.
        ids: What tells each image of the source from all others.
        labels: Of each image, all int of -2**63..2**63 - 1, or all str; None for an image without.
        sizes: (height, width) of each image that was encoded in pixels, before it was padded.

    NumPy's arrays and numbers are kept as lists of Python's own.

    Raises:
        ValueError: If there is not one of each per image, or it is of another kind.
    """

    codes: Codes
    ids: Sequence[str] | None = None
    labels: Sequence[Label] | None = None
    sizes: Sequence[tuple[int, int]] | None = None

    def __post_init__(self):
        for name in ("ids", "labels", "sizes"):
            values = getattr(self, name)
            if values is None:
                continue
            if len(values) != len(self.codes):
                raise ValueError(f"{name} must be one per image; got {len(values)} for {len(self.codes)} images")
            object.__setattr__(self, name, _plain(list(values)))
        self._check_ids()
        self._check_labels()
        self._check_sizes()

    def _check_ids(self) -> None:
        if others := [each for each in self.ids or () if not isinstance(each, str)]:
            raise ValueError(f"ids must be strings; got {others[0]!r}; name each image, or leave ids out")

    def _check_labels(self) -> None:
        labels = [label for label in self.labels or () if label is not None]
        kinds = {type(label) for label in labels}
        if len(kinds) > 1 or not kinds <= {int, str}:
            names = sorted(kind.__name__ for kind in kinds)
            raise ValueError(
                f"labels must be all int or all str; got {', '.join(names)}; convert them, or leave them out"
            )
        too_large = [label for label in labels if isinstance(label, int) and not -(2**63) <= label < 2**63]
        if too_large:
            raise ValueError(f"labels must lie in -2**63..2**63 - 1; got {too_large[0]}; convert them to strings")

    def _check_sizes(self) -> None:
        if self.sizes is None:
            return
        for size in self.sizes:
            if not isinstance(size, list | tuple) or [type(side) for side in size] != [int, int]:
                raise ValueError(f"sizes must be (height, width), whole numbers; got {size!r}; give them in pixels")
            if not all(1 <= side < 2**31 for side in size):
                raise ValueError(f"sizes must be at least 1 x 1 pixels, each side below 2**31; got {tuple(size)}")
        object.__setattr__(self, "sizes", [tuple(size) for size in self.sizes])


def _plain(value: Any) -> Any:
    """NumPy's arrays and numbers, in a pair, too, as Python's own."""
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
