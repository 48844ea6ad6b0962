"""Several sources of images as one folder of parquet files, one per split."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
from PIL import Image
from tqdm import tqdm

from depthq.data import Split, evaluation_loader, open_images
from depthq.files import new_folder

IMAGE_SIZE = 32
_SPLITS: tuple[Split, ...] = ("train", "test")
_BATCH_SIZE = 1024


def join_sources(sources: Sequence[str], folder: Path) -> None:
    """Write the images of all sources, 32x32 and one source after the other, into train.parquet and test.parquet."""
    with new_folder(folder) as partial:
        for split in _SPLITS:
            cells = [{"bytes": png, "path": None} for png in _encoded(sources, split)]
            images = datasets.Dataset.from_dict({"image": cells}).cast_column("image", datasets.Image(decode=False))
            images.to_parquet(partial / f"{split}.parquet")


def _encoded(sources: Sequence[str], split: Split) -> Iterator[bytes]:
    for source in sources:
        batches = evaluation_loader(open_images(source, split, image_size=IMAGE_SIZE), batch_size=_BATCH_SIZE)
        for batch in tqdm(batches, desc=f"{source}, {split}", unit="batch"):
            for image in batch.permute(0, 2, 3, 1).numpy():
                file = io.BytesIO()
                Image.fromarray(image).save(file, "PNG")
                yield file.getvalue()
