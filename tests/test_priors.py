"""What codes cost under a prior."""

import math

import pytest
import torch

from depthq import Codes
from depthq.priors import UniformPrior


def test_uniform_prior_costs_log_k_per_code():
    levels = (torch.zeros(3, 2, 2, 2, dtype=torch.int64), torch.ones(3, 1, 4, 4, dtype=torch.int64))
    nats = UniformPrior().nll_nats(Codes(levels, ((8, 5), (7,))))
    assert nats.shape == (3,)
    assert nats.dtype == torch.float64
    assert nats.tolist() == pytest.approx([4 * math.log(40) + 16 * math.log(7)] * 3, rel=1e-15)


def test_uniform_prior_costs_the_bits_that_the_codes_have():
    codes = Codes((torch.zeros(2, 5, 8, 8, dtype=torch.int64),), ((128,) * 5,))
    assert (UniformPrior().nll_nats(codes) / math.log(2)).tolist() == pytest.approx([codes.num_bits()] * 2, rel=1e-15)
