"""What the benchmarks of files share: images as Pillow's formats write them, alone or all in one; what sender and
receiver agree on."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from depthq.models import DQAE
from depthq.pixels import to_picture
from depthq.priors import CodePrior


def write(image: Tensor, options: dict) -> bytes:
    """Of uint8 (C, H, W), as Pillow writes it with these options."""
    file = io.BytesIO()
    to_picture(image).save(file, **options)
    return file.getvalue()


def read(data: bytes) -> Tensor:
    """uint8 (1, C, H, W)."""
    with Image.open(io.BytesIO(data)) as picture:
        array = np.array(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)[None]


def mosaic(images: Tensor) -> Tensor:
    """uint8 (C, rows H, columns W), as square as can be; black where images run out."""
    columns = math.ceil(len(images) ** 0.5)
    rows = math.ceil(len(images) / columns)
    padded = torch.cat([images, images.new_zeros((rows * columns - len(images), *images.shape[1:]))])
    return padded.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def weights_bits(model: DQAE, prior: CodePrior | None) -> int:
    """What the networks take that no file holds, as float32."""
    modules = (model,) if prior is None else (model, prior)
    return 32 * sum(tensor.numel() for module in modules for tensor in module.state_dict().values())
