"""The transformer: what a position may know, and that it learns what there is to learn."""

import math

import pytest
import torch

from depthq import Codes
from depthq.priors import TransformerPrior
from depthq.priors.transformer import known_positions

SIZES, GRIDS = ((4, 4), (4, 4)), ((1, 2), (2, 4))


def make(factorization="sequential", **options):
    torch.manual_seed(0)
    return TransformerPrior(SIZES, GRIDS, factorization, width=16, num_layers=1, num_heads=2, **options)


@pytest.mark.parametrize("factorization", ["parallel", "sequential"])
def test_a_position_knows_nothing_of_later_ones(factorization):
    prior = make(factorization)
    codes = Codes((torch.zeros(1, 2, 1, 2, dtype=torch.int64), torch.zeros(1, 2, 2, 4, dtype=torch.int64)), SIZES)
    other = Codes((codes.levels[0], codes.levels[1].clone()), SIZES)
    other.levels[1][0, :, 0, 3] = 1  # position 5 of 10
    before, after = prior(codes)[0], prior(other)[0]
    assert torch.equal(before[:5], after[:5])
    assert (before[5:] != after[5:]).all()


def test_only_the_sequential_head_sees_the_codebooks_before():
    """Two codebooks that always say the same: bits of the second are free, but only one by one."""
    nats = {}
    for factorization in ("parallel", "sequential"):
        prior, generator = make(factorization), torch.Generator().manual_seed(0)
        optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
        for _ in range(150):
            levels = [torch.randint(4, (32, 1, *grid), generator=generator).expand(-1, 2, -1, -1) for grid in GRIDS]
            cost = prior(Codes(tuple(levels), SIZES)).mean()
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        nats[factorization] = cost.item()
    assert nats["parallel"] == pytest.approx(2 * math.log(4), rel=0.05)
    assert nats["sequential"] == pytest.approx(math.log(4), rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factorization": "both"}, "factorization must be parallel or sequential"),
        ({"width": 10, "num_heads": 4}, "width a multiple of num_heads"),
        ({"num_layers": 0}, "at least 1"),
        ({"grids": ((1, 2),)}, "grids must be one"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TransformerPrior(**{"codebook_sizes": SIZES, "grids": GRIDS} | options)


def test_codes_of_other_ranks_are_refused():
    with pytest.raises(ValueError, match="must be maps"):
        TransformerPrior(((4,),), ((1, 4),)).nll_nats(Codes((torch.zeros(1, 1, 4, dtype=torch.int64),), ((4,),)))


def test_positions_know_the_one_before_the_one_above_and_their_parent():
    # Level 0: positions 0 and 1; level 1, 2 x 4: positions 2 to 9; 10 stands for none.
    known = known_positions(GRIDS).tolist()
    assert known[0] == [10, 10, 10]
    assert known[1] == [0, 10, 10]
    assert known[2] == [1, 10, 0]  # first of level 1: behind the last of level 0
    assert known[5] == [4, 10, 1]
    assert known[9] == [8, 5, 1]


def test_a_prior_that_was_used_in_inference_mode_trains_afterwards():
    prior = TransformerPrior(((4,),), ((3, 5),))
    codes = Codes((torch.zeros(1, 1, 3, 5, dtype=torch.int64),), ((4,),))
    known_positions.cache_clear()
    with torch.inference_mode():
        prior.nll_nats(codes)
    prior.nll_nats(codes).sum().backward()
    assert all(weight.grad is not None for weight in prior.known.parameters())
