"""Any source of images -> uint8 batches; codes -> batches for a prior."""

from typing import TYPE_CHECKING

from depthq.data.errors import DataError
from depthq.data.origin import Origin
from depthq.data.split import Split
from depthq.lazy import lazy_names

if TYPE_CHECKING:
    from depthq.data.codes import code_evaluation_loader, code_training_loader
    from depthq.data.images import HeldImages, ImageDataset, LazyImages
    from depthq.data.loaders import evaluation_loader, training_loader
    from depthq.data.opening import (
        Reading,
        count_images,
        describe_images,
        open_images,
        open_whole_images,
        what_was_taken,
    )
    from depthq.data.whole import ImageBatch, ImageBatches
else:  # a command line is parsed without reading images
    __getattr__, __dir__ = lazy_names(
        __name__,
        dict.fromkeys(["code_evaluation_loader", "code_training_loader"], "depthq.data.codes")
        | dict.fromkeys(["HeldImages", "ImageDataset", "LazyImages"], "depthq.data.images")
        | dict.fromkeys(["evaluation_loader", "training_loader"], "depthq.data.loaders")
        | dict.fromkeys(
            ["Reading", "count_images", "describe_images", "open_images", "open_whole_images", "what_was_taken"],
            "depthq.data.opening",
        )
        | dict.fromkeys(["ImageBatch", "ImageBatches"], "depthq.data.whole"),
    )

__all__ = [
    "DataError",
    "HeldImages",
    "ImageBatch",
    "ImageBatches",
    "ImageDataset",
    "LazyImages",
    "Origin",
    "Reading",
    "Split",
    "code_evaluation_loader",
    "code_training_loader",
    "count_images",
    "describe_images",
    "evaluation_loader",
    "open_images",
    "open_whole_images",
    "training_loader",
    "what_was_taken",
]
