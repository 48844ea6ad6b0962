"""Samples, and the training images nearest to them."""

import pytest
import torch

from depthq import DQAE
from depthq.models import PRESETS
from depthq.priors import UniformPrior
from depthq.report import draw_samples


def test_nearest_is_the_training_image_with_the_least_squared_error():
    torch.manual_seed(0)
    model = DQAE(PRESETS["tiny"]).eval()
    prior = UniformPrior(model.codebook_sizes, ((4, 4),))
    training = torch.randint(0, 256, (30, 3, 16, 16), dtype=torch.uint8)
    found = draw_samples(model, prior, 3, training.split(7))
    assert found.searched == 30
    for sample, nearest in zip(found.images, found.nearest, strict=True):
        errors = (training.float() - sample.float()).square().mean((1, 2, 3))
        assert torch.equal(nearest, training[errors.argmin()])
    known = torch.cat([training, found.images[1:2]])
    assert torch.equal(draw_samples(model, prior, 3, [known]).nearest[1], found.images[1])


def test_training_images_must_be_there_and_of_the_samples_size():
    model = DQAE(PRESETS["tiny"]).eval()
    prior = UniformPrior(model.codebook_sizes, ((4, 4),))
    with pytest.raises(ValueError, match="at least one image"):
        draw_samples(model, prior, 1, [])
    with pytest.raises(ValueError, match="must have the samples' shape"):
        draw_samples(model, prior, 1, [torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
