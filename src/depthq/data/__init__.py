"""Any source of images -> uint8 batches."""

from depthq.extras import explain_missing

with explain_missing():
    from depthq.data.errors import DataError
    from depthq.data.images import HeldImages, ImageDataset, LazyImages
    from depthq.data.loaders import evaluation_loader, training_loader
    from depthq.data.opening import describe_images, open_images

__all__ = [
    "DataError",
    "HeldImages",
    "ImageDataset",
    "LazyImages",
    "describe_images",
    "evaluation_loader",
    "open_images",
    "training_loader",
]
