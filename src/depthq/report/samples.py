"""Images that nobody took, beside the training images nearest to them: whether a prior knows some by heart."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from depthq.models import DQAE
from depthq.priors import CodePrior


@dataclass(frozen=True)
class Samples:
    """Samples and what they are compared with; all uint8 (B, C, H, W)."""

    images: Tensor
    nearest: Tensor
    """Of each sample the training image nearest to it, by squared error of pixels."""
    searched: int
    """How many training images were looked at."""


def draw_samples(model: DQAE, prior: CodePrior, count: int, training_images: Iterable[Tensor]) -> Samples:
    """Draw images from a prior, as the decoder's means, and find the nearest training images.

    Args:
        model: What decodes.
        prior: Of its codes.
        count: How many to draw.
        training_images: Batches uint8 (B, C, H, W).

    Raises:
        ValueError: If there are no training images of the samples' size.
    """
    samples = model.decode(prior.sample(count).to(model.device)).cpu()
    flat, searched = samples.flatten(1).float(), 0
    least, nearest = torch.full((count,), torch.inf, dtype=torch.float32), torch.zeros_like(samples)
    for images in training_images:
        if images.shape[1:] != samples.shape[1:]:
            of_samples, of_images = tuple(samples.shape[1:]), tuple(images.shape[1:])
            raise ValueError(f"training_images must have the samples' shape {of_samples}; got {of_images}")
        distance, index = torch.cdist(flat, images.flatten(1).float()).min(1)
        nearer = distance < least
        least[nearer], nearest[nearer] = distance[nearer], images[index[nearer]]
        searched += len(images)
    if not searched:
        raise ValueError("training_images must hold at least one image; got none")
    return Samples(samples, nearest, searched)
