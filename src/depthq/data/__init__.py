"""Any source of images -> uint8 batches."""

from depthq.extras import explain_missing

with explain_missing():
    from depthq.data.errors import DataError
    from depthq.data.images import HeldImages, ImageDataset, LazyImages
    from depthq.data.loaders import ImageBatch, encoding_loader, evaluation_loader, training_loader
    from depthq.data.opening import count_images, describe_images, open_images
    from depthq.data.origin import Origin
    from depthq.data.sources import Split

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
