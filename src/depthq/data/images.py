"""The images of one split: held as one tensor where they are few, read one by one where they are many."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from depthq.data.encoded import EncodedImages
from depthq.data.errors import DataError
from depthq.data.origin import Origin
from depthq.data.reading import EncodedImage, read_pixels

_NUM_NAMED = 3
DECODED_BYTES = 2**30
"""What a process keeps of decoded images: a set that takes no more is held whole; of a larger one, or one of several
sizes, as many images as fit, and the others are decoded whenever they are asked for, by workers."""

OnBadImage = Literal["raise", "skip"]


class ImageDataset(ABC):
    """The images of one split, as `open_images` gives them.

    `images[i]` is uint8 (C, H, W), H and W at least `image_size`; None where a bad image is skipped.
    """

    num_channels: int
    """C: 1 (gray) or 3 (RGB)."""
    image_size: int
    """S, the side of the crops in pixels."""
    label_type: type[int] | type[str] | None
    """What the labels of the source are, though single images may lack theirs; None where it has no labels."""
    taken_from: str = ""
    """Where the images come from, in words."""
    left_out: tuple[str, ...] = ()
    """What of the source is in no split or cannot be used, and why, in words."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> np.ndarray | None: ...

    num_bytes: int
    """What the pixels of all images take decoded, full size, as far as headers tell."""

    @abstractmethod
    def origins(self, indices: Sequence[int]) -> list[Origin]:
        """Id and label of the images of these numbers."""

    @abstractmethod
    def names(self) -> list[str]:
        """What tells each image from others wherever it lies, in the order of the images: see `EncodedImages.names`."""

    @property
    @abstractmethod
    def num_skipped(self) -> int:
        """How many bad images have been skipped so far, each counted once."""

    def names_of_skipped(self, most: int | None = None) -> list[str]:
        """What messages call the bad images skipped so far, the first of them, in their order."""
        return []

    def forget_skipped(self) -> None:
        """Count those anew that are skipped as they are read."""
        return

    @abstractmethod
    def warn_of_skipped(self) -> None:
        """Warn of the bad images skipped, if there are any that no warning has told of yet."""


class HeldImages(ImageDataset):
    """Images held as one tensor. The bad ones were left out, and told of, when it was made.

    Args:
        pixels: uint8 (B, C, H, W).
        image_size: Side of the crops, at most H and W; None: H, where all are square.
        num_skipped: How many bad images were left out.
        origins: Of each image; None: its number is its id.
        names: Of each image; None: its id.
    """

    def __init__(
        self,
        pixels: Tensor,
        image_size: int | None = None,
        num_skipped: int = 0,
        origins: Sequence[Origin] | None = None,
        names: Sequence[str] | None = None,
    ):
        self.pixels = pixels
        self.num_bytes = pixels.numel()
        self.num_channels = pixels.shape[1]
        self.image_size = image_size or pixels.shape[2]
        labels = (origin.label for origin in origins or ())
        self.label_type = next((type(label) for label in labels if label is not None), None)
        self._num_skipped = num_skipped
        self._origins, self._names = origins, names

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.pixels[index].numpy()

    def origins(self, indices: Sequence[int]) -> list[Origin]:
        return [Origin(str(index)) if self._origins is None else self._origins[index] for index in indices]

    def names(self) -> list[str]:
        return [origin.id for origin in self.origins(range(len(self)))] if self._names is None else list(self._names)

    @property
    def num_skipped(self) -> int:
        return self._num_skipped

    def warn_of_skipped(self) -> None:
        """Nothing: told already."""


class LazyImages(ImageDataset):
    """Images that are read whenever they are asked for.

    Args:
        encoded: The images.
        num_channels: C, 1 or 3; see `read_pixels`.
        image_size: Side of the crops; smaller images are bad.
        must_fit_exactly: Whether larger images are bad as well.
        on_bad_image: Whether to raise a `DataError` for a bad image, or to give None and count it.
        background: See `read_pixels`.
        bytes_per_image: What the pixels of an image take decoded, on average.
    """

    def __init__(
        self,
        encoded: EncodedImages,
        *,
        num_channels: int,
        image_size: int,
        must_fit_exactly: bool,
        on_bad_image: OnBadImage,
        background: str | None = None,
        bytes_per_image: float = 0.0,
    ):
        self.num_bytes = int(bytes_per_image * len(encoded))
        self.num_channels = num_channels
        self.image_size = image_size
        self.label_type = encoded.label_type
        self._encoded = encoded
        self._must_fit_exactly = must_fit_exactly
        self._on_bad_image = on_bad_image
        self._background = background
        self.taken_from, self.left_out = encoded.taken_from, encoded.left_out
        # In shared memory, so that the process that warns sees what its workers mark.
        self._is_bad = torch.zeros(len(encoded), dtype=torch.bool).share_memory_()
        self._num_told = 0

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> np.ndarray | None:
        return self.read([index])[0]

    def origins(self, indices: Sequence[int]) -> list[Origin]:
        return self._encoded.origins(indices)

    def names(self) -> list[str]:
        return self._encoded.names()

    def read(self, indices: Sequence[int]) -> list[np.ndarray | None]:
        """`[images[i] for i in indices]`, with a single look into the table."""
        return [
            self._read_one(index, encoded) for index, encoded in zip(indices, self._encoded.read(indices), strict=True)
        ]

    def _read_one(self, index: int, encoded: EncodedImage) -> np.ndarray | None:
        try:
            pixels = read_pixels(encoded, self.num_channels, self._background)
            self._check_size(pixels, encoded.name)
        except DataError:
            if self._on_bad_image == "raise":
                raise
            self._is_bad[index] = True
            return None
        return pixels

    def _check_size(self, pixels: np.ndarray, name: str) -> None:
        (_, height, width), side = pixels.shape, self.image_size
        if self._must_fit_exactly and (height, width) != (side, side):
            raise DataError(
                f"images must share one size where image_size is not given, here {side} x {side}; "
                f"got {name} of {height} x {width}; pass image_size to crop"
            )
        if min(height, width) < side:
            raise DataError(
                f"images must be at least image_size, {side} x {side}; got {name} of {height} x {width}; "
                "pass a smaller image_size, or enlarge or remove the image"
            )

    @property
    def num_skipped(self) -> int:
        return int(self._is_bad.sum())

    def skipped(self) -> Tensor:
        """bool (len(self),): which images have been skipped so far."""
        return self._is_bad.clone()

    def forget_skipped(self) -> None:
        self._is_bad.zero_()
        self._num_told = 0

    def names_of_skipped(self, most: int | None = None) -> list[str]:
        first = self._is_bad.nonzero().flatten()[:most].tolist()
        return [encoded.name for encoded in self._encoded.read(first)]

    def warn_of_skipped(self) -> None:
        if self.num_skipped == self._num_told:
            return
        self._num_told = self.num_skipped
        names = ", ".join(self.names_of_skipped(_NUM_NAMED))
        more = ", ..." if self._num_told > _NUM_NAMED else ""
        warnings.warn(f"skipped {self._num_told} bad images of {len(self)}: {names}{more}", stacklevel=2)
