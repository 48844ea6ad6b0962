"""Tables of counts, checked by hand."""

import pytest
import torch

from depthq import Codes
from depthq.priors import CountedPrior

ONE_ROW = Codes((torch.tensor([[[[0, 0, 1]]]]),), ((2,),))


def test_counts_are_smoothed_by_half_a_code():
    # p(0) = 2.5 / 4, p(1) = 1.5 / 4
    nats = CountedPrior.from_codes([ONE_ROW]).nll_nats(ONE_ROW)
    assert nats.neg().exp().tolist() == pytest.approx([(2.5 / 4) ** 2 * (1.5 / 4)])


def test_tables_beside_the_left_neighbour_fall_back_on_the_counts():
    prior = CountedPrior.from_codes([ONE_ROW], given_left=True)
    # First column: p(0) = 2.5 / 4. Beside 0, which was seen before 0 and before 1: (1 + 2 * 2.5 / 4) / (2 + 2) for 0.
    assert prior.nll_nats(ONE_ROW).neg().exp().tolist() == pytest.approx([2.5 / 4 * (2.25 / 4) * (1.75 / 4)])
    never_seen = Codes((torch.tensor([[[[1, 0]]]]),), ((2,),))  # nothing is known beside 1: p(0) once more
    assert prior.nll_nats(never_seen).neg().exp().tolist() == pytest.approx([1.5 / 4 * 2.5 / 4])


def test_codebooks_of_many_batches_are_counted_together():
    torch.manual_seed(0)
    codes = Codes((torch.randint(5, (6, 2, 3, 3)),), ((5, 7),))
    whole = CountedPrior.from_codes([codes], given_left=True)
    parts = CountedPrior.from_codes([codes[:2], codes[2:]], given_left=True)
    assert whole.nll_nats(codes).tolist() == parts.nll_nats(codes).tolist()


def test_there_must_be_codes_and_they_must_be_maps():
    with pytest.raises(ValueError, match="at least one"):
        CountedPrior.from_codes([])
    with pytest.raises(ValueError, match="must be maps"):
        CountedPrior.from_codes([Codes((torch.zeros(1, 2, 5, dtype=torch.int64),), ((4, 4),))])
