"""Whole numbers: literals checked by hand, and agreement with the likelihoods in floating point."""

import math

import pytest
import torch

from depthq.coding.integers import Grid, NearBoundaryError, code_frequencies, sub_pixels
from depthq.coding.tables import exponential, inverse_scales, logistic, logistic_at
from depthq.likelihoods import CategoricalLikelihood, L2Likelihood, LogisticMixtureLikelihood

GRID = Grid(0, careful=False)


def test_tables_are_the_functions_they_store():
    assert exponential()[:3].tolist() == [2**20, int(2**20 * math.exp(-1 / 32)), int(2**20 * math.exp(-2 / 32))]
    assert exponential()[-1] == 0
    at = torch.tensor([-(10**9), -2048, 0, 2048, 10**9])
    expected = [1 / (1 + math.exp(-z)) for z in (-16, -1, 0, 1, 16)]
    assert [value / 2**24 for value in logistic_at(at).tolist()] == pytest.approx(expected, abs=2**-23)
    assert logistic().diff().min() >= 0
    assert len(logistic()) == 2 * 16 * 2048 + 1
    # One unit at scale 1 is 2048 places; at scale e^-1, 2048 e.
    assert inverse_scales(1)[7 * 32].item() == 2048 << 24
    assert inverse_scales(1)[6 * 32].item() == pytest.approx(2048 * math.e * 2**24, rel=1e-9)


def test_grid_rounds_and_its_offset_moves_it():
    outputs = torch.tensor([0.2, 0.5 + 1e-6, -0.3], dtype=torch.float64)
    assert Grid(0, careful=True)(outputs, 1).tolist() == [0, 1, 0]
    assert Grid(64, careful=True)(outputs, 1).tolist() == [0, 1, 0]
    assert Grid(255, careful=True)(outputs, 1).tolist() == [1, 1, 1]


def test_careful_grid_refuses_what_lies_at_a_boundary():
    at_boundary = torch.tensor([0.5 + 1e-12], dtype=torch.float64)
    with pytest.raises(NearBoundaryError):
        Grid(0, careful=True)(at_boundary, 1)
    assert Grid(0, careful=False)(at_boundary, 1).tolist() == [1]
    assert Grid(1, careful=True)(at_boundary, 1).tolist() == [1]


def test_codes_get_frequencies_as_their_logits_say():
    logits = torch.tensor([[0.0, math.log(3), -100.0]], dtype=torch.float64)
    frequencies = code_frequencies(logits, GRID)
    assert frequencies.sum() == 2**23
    shares = (frequencies[0] / 2**23).tolist()
    assert shares[:2] == pytest.approx([0.25, 0.75], abs=0.01)  # logits lie on a grid of 1/32
    assert frequencies[0, 2] == 1


@pytest.mark.parametrize("likelihood", [LogisticMixtureLikelihood(3, 4), LogisticMixtureLikelihood(1, 4)])
@pytest.mark.parametrize("log_scale", [-6.5, -4.0, -2.0, 1.0])
def test_mixture_costs_what_the_likelihood_says(likelihood, log_scale):
    torch.manual_seed(0)
    parameters = torch.randn(2000, likelihood.num_parameters).double() / 2
    for of_channel in likelihood.split(parameters)[2]:
        of_channel.add_(log_scale)
    maps = parameters.float()[..., None, None]
    drawn = likelihood.sample(maps, torch.Generator().manual_seed(0))
    ours = bits_of(sub_pixels(likelihood, parameters, GRID), drawn.squeeze(3).squeeze(2).long())
    floating = -likelihood.log_prob(maps, drawn).squeeze(3).squeeze(2) / math.log(2)
    assert (ours - floating).mean().abs() < 0.01
    assert ours.max() <= 20


def test_categorical_costs_what_the_likelihood_says():
    torch.manual_seed(0)
    likelihood, parameters = CategoricalLikelihood(3), torch.randn(200, 768).double()
    values = torch.randint(0, 256, (200, 3))
    ours = bits_of(sub_pixels(likelihood, parameters, GRID), values)
    floating = likelihood.log_prob(parameters.float()[..., None, None], values.to(torch.uint8)[..., None, None])
    assert (ours + floating.squeeze(3).squeeze(2) / math.log(2)).abs().max() < 0.05


def bits_of(pixels, values):
    """-log2 of the share of each value (N, C)."""
    bits = []
    for channel, at in enumerate(values.unbind(1)):
        high, low = pixels.high(channel), pixels.low(channel, at // 16)
        assert (high.sum(1) == 2**20).all()
        assert min(high.min(), low.min()) >= 1
        assert torch.equal(high.expand(len(at), -1).gather(1, at[:, None] // 16), low.sum(1, keepdim=True))
        bits.append(20 - low.gather(1, at[:, None] % 16).squeeze(1).double().log2())
        pixels.learn(channel, at)
    return torch.stack(bits, dim=1)


def test_a_density_has_no_frequencies():
    with pytest.raises(ValueError, match="likelihood must give 8-bit values probabilities"):
        sub_pixels(L2Likelihood(3), torch.zeros(1, 3).double(), GRID)
