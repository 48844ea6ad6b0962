import math

import pytest
import torch

from depthq.likelihoods import L2Likelihood
from depthq.pixels import normalize


def test_black_pixel_under_zero_mean_is_known_by_hand():
    log_prob = L2Likelihood(1).log_prob(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.uint8))
    assert log_prob.item() == pytest.approx(-((0.449 / 0.226) ** 2) - 0.5 * math.log(math.pi))


def test_agrees_with_a_normal_of_variance_one_half():
    torch.manual_seed(0)
    mean, images = torch.randn(2, 3, 4, 4), torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    expected = torch.distributions.Normal(mean, math.sqrt(0.5)).log_prob(normalize(images))
    torch.testing.assert_close(L2Likelihood(3).log_prob(mean, images), expected)


def test_gradient_is_that_of_the_squared_error():
    torch.manual_seed(0)
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    ours = torch.randn(2, 3, 4, 4, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    (-L2Likelihood(3).log_prob(ours, images)).mean().backward()
    torch.nn.functional.mse_loss(theirs, normalize(images)).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_mean_of_normalized_images_is_the_images():
    images = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    torch.testing.assert_close(L2Likelihood(3).mean(normalize(images)), images.float(), atol=1e-4, rtol=0)


def test_mean_is_clamped():
    likelihood = L2Likelihood(3)
    assert (likelihood.mean(torch.full((1, 3, 2, 2), 9.0)) == 255).all()
    assert (likelihood.mean(torch.full((1, 3, 2, 2), -9.0)) == 0).all()
