"""Patches of the real photos that come inside the scikit-image package: no download.

The split is by photo, so no test pixel is trained on. A portrait, a cat and a still life are for testing; the
two views of one motorcycle, which show the same things, are both for training. Photos with a side of over 800
pixels are smooth at full size, and are first halved by a 2 x 2 box filter. Training patches overlap by half,
test patches not at all; at 32 x 32 there are 7,265 and 598. A patch's id is its photo's name and where in it the
patch starts, as in chelsea.png:32,64 (row, column).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from depthq.data.errors import DataError
from depthq.data.images import HeldImages, ImageDataset
from depthq.data.origin import Origin
from depthq.data.reading import EncodedImage, read_pixels
from depthq.data.split import Split
from depthq.extras import explain_missing

PHOTOS = {
    "train": (
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "test": ("astronaut.png", "chelsea.png", "coffee.png"),
}
_LONGEST_SIDE_PX = 800
_TAKEN_FROM = "the bundled photos"


def bundled_patches(split: Split, image_size: int) -> HeldImages:
    """All patches of one split; of "all", those for training first.

    Args:
        split: Whose photos to cut.
        image_size: Side of a patch in pixels, 1..300 for the test photos and 1..427 for the others.

    Raises:
        DataError: If `image_size` is larger than a photo, or scikit-image has come without its photos.
    """
    origins, patches = [], []
    for part in PHOTOS if split == "all" else (split,):
        stride = max(image_size // 2, 1) if part == "train" else image_size
        for name in PHOTOS[part]:
            for origin, patch in _cut(_read_photo(name), name, image_size, stride):
                origins.append(origin)
                patches.append(patch)
    images = HeldImages(torch.from_numpy(np.stack(patches)), origins=origins)
    images.taken_from = _TAKEN_FROM
    return images


def bundled_photos(split: Split) -> ImageDataset:
    """The whole photos of one split; of "all", those for training first. An id is the photo's name."""
    parts = PHOTOS if split == "all" else (split,)
    return _Photos({name: _read_photo(name) for part in parts for name in PHOTOS[part]})


class _Photos(ImageDataset):
    def __init__(self, photos: dict[str, np.ndarray]):
        self.num_channels, self.image_size, self.label_type = 3, 1, None
        self.num_bytes = sum(photo.nbytes for photo in photos.values())
        self.taken_from = _TAKEN_FROM
        self._names, self._photos = list(photos), list(photos.values())

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._photos[index]

    def origins(self, indices: Sequence[int]) -> list[Origin]:
        return [Origin(self._names[index]) for index in indices]

    def names(self) -> list[str]:
        return self._names

    @property
    def num_skipped(self) -> int:
        return 0

    def warn_of_skipped(self) -> None:
        """Nothing: none is bad."""


def _read_photo(name: str) -> np.ndarray:
    """uint8 (3, H, W)."""
    with explain_missing():
        import skimage
        from PIL import Image

    photo = read_pixels(EncodedImage(name, str(Path(skimage.__file__).parent / "data" / name)), num_channels=3)
    if max(photo.shape) > _LONGEST_SIDE_PX:
        photo = np.asarray(Image.fromarray(photo.transpose(1, 2, 0)).reduce(2)).transpose(2, 0, 1)
    return photo


def _cut(photo: np.ndarray, name: str, size: int, stride: int) -> Iterator[tuple[Origin, np.ndarray]]:
    _, height, width = photo.shape
    if size > min(height, width):
        raise DataError(
            f"image_size must be at most the shorter side of each bundled photo; got {size} for {name} of "
            f"{height} x {width}; choose a smaller one or another source"
        )
    for top in range(0, height - size + 1, stride):
        for left in range(0, width - size + 1, stride):
            yield Origin(f"{name}:{top},{left}"), photo[:, top : top + size, left : left + size]
