import math

import pytest
import torch

from depthq.likelihoods import CategoricalLikelihood
from depthq.likelihoods.categorical import _CHUNK_ROWS, reference_log_prob_rows


def test_uniform_logits_cost_eight_bits():
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    log_prob = CategoricalLikelihood(3).log_prob(torch.full((1, 768, 1, 1), 0.7), images)
    torch.testing.assert_close(log_prob, torch.full((1, 3, 1, 1), -8 * math.log(2)))


def test_logit_of_value_v_of_channel_c_is_at_256_c_plus_v():
    likelihood = CategoricalLikelihood(3)
    values = torch.tensor([0, 100, 255], dtype=torch.uint8)
    parameters = torch.zeros(1, 768, 1, 1)
    parameters[0, [0, 256 + 100, 512 + 255]] = 100.0
    torch.testing.assert_close(likelihood.mean(parameters).flatten(), values.float())
    assert torch.equal(likelihood.sample(parameters).flatten(), values)
    torch.testing.assert_close(likelihood.log_prob(parameters, values.view(1, 3, 1, 1)), torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize("magnitude", [1.0, 30.0, 1e4])
def test_probabilities_of_all_values_sum_to_one(magnitude):
    torch.manual_seed(0)
    parameters = magnitude * torch.randn(1, 768, 1, 1).expand(256, -1, -1, -1)
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(-1, 3, -1, -1)
    total = CategoricalLikelihood(3).log_prob(parameters, images).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(3, 1, 1), atol=1e-4, rtol=0)


def test_agrees_with_torch_distributions():
    torch.manual_seed(0)
    parameters, images = 3 * torch.randn(2, 768, 4, 4), torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    logits = parameters.double().view(2, 3, 256, 4, 4).movedim(2, -1)
    expected = torch.distributions.Categorical(logits=logits).log_prob(images.long())
    torch.testing.assert_close(CategoricalLikelihood(3).log_prob(parameters, images), expected.float())


@pytest.mark.parametrize("num_rows", [1, _CHUNK_ROWS, 2 * _CHUNK_ROWS + 7])
def test_chunks_agree_with_the_reference(num_rows):
    torch.manual_seed(0)
    likelihood = CategoricalLikelihood(1)
    ours = torch.randn(num_rows, 256, 1, 1, requires_grad=True)
    theirs = ours.detach().view(num_rows, 256).clone().requires_grad_()
    images = torch.randint(256, (num_rows, 1, 1, 1), dtype=torch.uint8)
    log_prob = likelihood.log_prob(ours, images)
    expected = reference_log_prob_rows(theirs, images.view(-1).long())
    torch.testing.assert_close(log_prob.view(-1), expected)
    weights = torch.rand(num_rows)
    log_prob.view(-1).backward(weights)
    expected.backward(weights)
    torch.testing.assert_close(ours.grad.view(num_rows, 256), theirs.grad)


@pytest.mark.parametrize("channels", [1, 3])
def test_start_tilts_the_logits_of_a_channel_alone(channels):
    likelihood = CategoricalLikelihood(channels)
    head = torch.nn.Conv2d(4, likelihood.num_parameters, 1)
    likelihood.start(head)
    logits = head(torch.randn(2, 4, 1, 1)).view(2, channels, 256)
    steps = logits.diff(dim=2)
    torch.testing.assert_close(steps, steps[..., :1].expand(-1, -1, 255), rtol=1e-3, atol=1e-5)  # a straight line
    torch.testing.assert_close(logits[..., 0], -logits[..., 255])  # through nothing at mid-grey
    assert steps[..., 0].unique().numel() == 2 * channels
