"""Any source of images -> uint8 batches."""

from typing import TYPE_CHECKING

from depthq.data.errors import DataError
from depthq.data.origin import Origin
from depthq.data.split import Split
from depthq.lazy import lazy_names

if TYPE_CHECKING:
    from depthq.data.images import HeldImages, ImageDataset, LazyImages
    from depthq.data.loaders import ImageBatch, encoding_loader, evaluation_loader, training_loader
    from depthq.data.opening import count_images, describe_images, open_images
else:  # a command line is parsed without reading images
    __getattr__, __dir__ = lazy_names(
        __name__,
        dict.fromkeys(["HeldImages", "ImageDataset", "LazyImages"], "depthq.data.images")
        | dict.fromkeys(
            ["ImageBatch", "encoding_loader", "evaluation_loader", "training_loader"], "depthq.data.loaders"
        )
        | dict.fromkeys(["count_images", "describe_images", "open_images"], "depthq.data.opening"),
    )

__all__ = [
    "DataError",
    "HeldImages",
    "ImageBatch",
    "ImageDataset",
    "LazyImages",
    "Origin",
    "Split",
    "count_images",
    "describe_images",
    "encoding_loader",
    "evaluation_loader",
    "open_images",
    "training_loader",
]
