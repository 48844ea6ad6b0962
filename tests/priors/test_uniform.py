"""What codes cost that are all alike."""

import math

import pytest
import torch

from depthq import Codes
from depthq.priors import UniformPrior, uniform_nll_nats

LEVELS = (torch.zeros(3, 2, 2, 2, dtype=torch.int64), torch.ones(3, 1, 4, 4, dtype=torch.int64))
CODES = Codes(LEVELS, ((8, 5), (7,)))


def test_costs_log_k_per_code():
    nats = uniform_nll_nats(CODES)
    assert nats.shape == (3,)
    assert nats.dtype == torch.float64
    assert nats.tolist() == pytest.approx([4 * math.log(40) + 16 * math.log(7)] * 3, rel=1e-15)
    assert UniformPrior(CODES.codebook_sizes, ((2, 2), (4, 4))).nll_nats(CODES).tolist() == nats.tolist()


def test_costs_the_bits_that_the_codes_have():
    codes = Codes((torch.zeros(2, 5, 8, 8, dtype=torch.int64),), ((128,) * 5,))
    assert (uniform_nll_nats(codes) / math.log(2)).tolist() == pytest.approx([codes.num_bits()] * 2, rel=1e-15)
