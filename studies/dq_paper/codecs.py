"""Image codecs at many qualities: the rate and distortion that a learned tokenizer stands beside."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from depthq.data import evaluation_loader, open_images
from depthq.pixels import psnr_db, to_picture
from studies.dq_paper.data_sets import open_data_set
from studies.dq_paper.experiment import Outcome

MOSAIC_SIDE = 100  # images


@dataclass(frozen=True, kw_only=True)
class Codec:
    """Encode all test images with a codec, and decode them.

    As files, each image is one, headers and all, as a web page would have it. As a mosaic, up to 100 x 100 images share
    one picture and its header, each on whole blocks: what the codec would need if its format had no overhead.
    """

    kind: ClassVar[str] = "codec"
    data: str
    codec: Literal["JPEG", "WEBP", "JXL"]
    quality: int
    """The codec's own scale, 0..100."""
    arrangement: Literal["files", "mosaic"]

    def run(self, folder: Path, sources: Mapping[str, str], *, progress: bool) -> Outcome:
        images = open_images(open_data_set(self.data, sources), "test")
        batches = evaluation_loader(images, batch_size=MOSAIC_SIDE**2 if self.arrangement == "mosaic" else 64)
        bits, quality_db = 0, []
        for batch in tqdm(batches, desc=f"{self.codec} {self.quality}", disable=not progress, leave=False):
            pictures = [_mosaic(batch)] if self.arrangement == "mosaic" else list(batch)
            decoded = []
            for picture in pictures:
                content = _encode(picture, self.codec, self.quality)
                bits += 8 * len(content)
                decoded.append(_decode(content, picture.shape[0]))
            restored = _tiles(decoded[0], batch) if self.arrangement == "mosaic" else torch.stack(decoded)
            quality_db += psnr_db(restored.float(), batch.float()).tolist()
        pixels = len(images) * images.image_size**2
        return Outcome(
            {"images": len(images), "bits_per_pixel": bits / pixels, "psnr_db": sum(quality_db) / len(quality_db)}
        )


def _encode(picture: Tensor, codec: str, quality: int) -> bytes:
    if codec == "JXL":
        _load_jpeg_xl()
    stream = io.BytesIO()
    to_picture(picture).save(stream, codec, quality=quality)
    return stream.getvalue()


def _decode(content: bytes, channels: int) -> Tensor:
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"))
    return torch.from_numpy(pixels.copy()).view(*pixels.shape[:2], channels).permute(2, 0, 1)  # (C, H, W)


def _load_jpeg_xl() -> None:
    """Make Pillow know JPEG XL."""
    try:
        import pillow_jxl  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            "codec 'JXL' must have pillow-jxl-plugin to run; it is not installed; pip install 'depthq[studies]'"
        ) from error


def _mosaic(images: Tensor) -> Tensor:
    """(B, C, S, S) to one picture (C, H, W), rows of 100 images; black where the last row has none."""
    rows = images.split(MOSAIC_SIDE)
    padded = [torch.nn.functional.pad(row, (0,) * 7 + (min(MOSAIC_SIDE, len(images)) - len(row),)) for row in rows]
    return torch.cat([torch.cat(list(row), dim=-1) for row in padded], dim=-2)


def _tiles(picture: Tensor, images: Tensor) -> Tensor:
    """The images (B, C, S, S) that `_mosaic` put together."""
    return torch.cat(list(_split(picture, images.shape[-1])))[: len(images)]


def _split(picture: Tensor, side: int) -> Iterator[Tensor]:
    for row in picture.split(side, dim=-2):
        yield torch.stack(row.split(side, dim=-1))
