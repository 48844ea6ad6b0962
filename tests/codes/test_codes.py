"""Codes: shapes, ranges, bits and usage, against literals."""

import math

import pytest
import torch

from depthq.codes import CodebookUsage, Codes, check_codes, count_codes


def codes_of(*levels, sizes):
    return Codes(tuple(torch.tensor(level) for level in levels), sizes)


@pytest.fixture
def two_levels():
    """3 images; 1 x 1 positions of codebooks of 2 and 4 codes, then 2 x 2 positions of the same."""
    return Codes((torch.ones(3, 2, 1, 1, dtype=torch.int64), torch.zeros(3, 2, 2, 2, dtype=torch.int64)), ((2, 4),) * 2)


def test_bits_are_positions_times_logarithms(two_levels):
    assert two_levels.num_bits() == 1 * (1 + 2) + 4 * (1 + 2)


def test_papers_rates():
    coarse, fine = torch.zeros(1, 5, 4, 4, dtype=torch.int64), torch.zeros(1, 5, 8, 8, dtype=torch.int64)
    codes = Codes((coarse, fine), ((256,) * 5, (128,) * 5))
    assert codes.num_bits() == 2880  # 16*5*8 + 64*5*7: 0.94 bits per dim of 32 x 32 x 3
    codes = Codes((torch.zeros(1, 10, 8, 8, dtype=torch.int64),), ((512,) * 10,))
    assert codes.num_bits() / 3072 == 1.875


def test_bits_do_not_depend_on_how_many_images(two_levels):
    assert two_levels[:1].num_bits() == two_levels.num_bits()


def test_codebook_of_one_code_costs_nothing():
    assert codes_of([[[[0]]]], sizes=((1,),)).num_bits() == 0


def test_slices_joined_are_the_whole(two_levels):
    again = Codes.cat([two_levels[:1], two_levels[1:]])
    assert len(again) == len(two_levels) == 3
    assert all(torch.equal(a, b) for a, b in zip(again.levels, two_levels.levels, strict=True))


@pytest.mark.parametrize("positions", [(), (5,), (2, 3), (2, 3, 4)])
def test_positions_may_have_any_rank(positions):
    """4 images of vectors, sequences, images or video: 3 codebooks of 8 codes at each position."""
    codes = Codes((torch.arange(4).view(4, 1, *[1] * len(positions)).expand(4, 3, *positions),), ((8, 8, 8),))
    assert codes.shapes == ((3, *positions),)
    assert codes.num_bits() == math.prod(positions) * 9
    assert codes[1:3].to("cpu").levels[0].shape == (2, 3, *positions)
    assert torch.equal(Codes.cat([codes[:1], codes[1:]]).levels[0], codes.levels[0])


def test_no_codebooks_cost_and_say_nothing():
    codes = Codes((torch.zeros(2, 0, 4, 4, dtype=torch.int64),), ((),))
    assert codes.num_bits() == 0
    assert len(codes[:1]) == 1
    counts = count_codes(codes.levels[0], ())
    assert counts.shape == (0, 0)
    assert CodebookUsage.from_counts(counts, ()).perplexity.tolist() == []


def test_parts_of_different_positions_do_not_join(two_levels):
    with pytest.raises(ValueError, match=r"parts must have the same positions; got \[\(\(2, 1, 1\), \(2, 2, 2\)\), "):
        Codes.cat([two_levels, Codes(tuple(level.repeat(1, 1, 2, 2) for level in two_levels.levels), ((2, 4),) * 2)])


def test_single_image_is_asked_for_as_a_slice(two_levels):
    with pytest.raises(TypeError, match=r"images must be a slice; got int; for one image use codes\[i : i \+ 1\]"):
        two_levels[0]


def test_parts_of_different_models_do_not_join(two_levels):
    other = codes_of([[[[0]]]], sizes=((2,),))
    with pytest.raises(ValueError, match="same codebook_sizes"):
        Codes.cat([two_levels, other])
    with pytest.raises(ValueError, match="non-empty"):
        Codes.cat([])


@pytest.mark.parametrize(
    ("levels", "sizes", "message"),
    [
        ((), (), "levels must hold one map per entry"),
        (([[[[0]]]],), ((2,), (2,)), "levels must hold one map per entry of codebook_sizes.*got 1 and 2"),
        (([0],), ((2,),), r"levels\[0\] must be \(B, M, ...\) .* got shape \(1,\)"),
        (
            ([[[[0]]]], [[[0]]]),
            ((2,), (2,)),
            r"positions of the same rank; got shape \(1, 1, 1\) in level 1 and \(1, 1, 1, 1\) in level 0",
        ),
        (([[[[0]]]], [[[[0]]], [[[0]]]]), ((2,), (2,)), "same number of images; got 2 in level 1 and 1 in level 0"),
        (([[[[2]]]],), ((2,),), r"levels\[0\] of codebook 0 must lie in \[0, 2\); got 2; were they made by another"),
        (([[[[0]], [[-1]]]],), ((2, 2),), r"levels\[0\] of codebook 1 must lie in \[0, 2\); got -1.*or count"),
        (([[[[0]]]],), ((2, 2),), "M = 2 codebooks on axis 1"),
    ],
)
def test_what_does_not_fit_is_refused(levels, sizes, message):
    with pytest.raises(ValueError, match=message):
        codes_of(*levels, sizes=sizes)


def test_codes_must_be_int64():
    with pytest.raises(ValueError, match=r"codes must be int64; got torch.int32; convert with .long\(\)"):
        check_codes(torch.zeros(1, 1, dtype=torch.int32), (2,))


def test_no_positions_are_fine():
    check_codes(torch.zeros(0, 1, 4, 4, dtype=torch.int64), (2,))


def test_counts_are_per_codebook_and_leave_masked_positions_out():
    codes = torch.tensor([[[0, 0, 2, -1], [1, 1, 1, 1]]])  # (1, 2, 4)
    assert count_codes(codes, (3, 2)).tolist() == [[2, 0, 1], [0, 4, 0]]


def test_usage_of_hand_counts():
    counts = torch.tensor([[4, 4, 0, 0], [8, 0, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]])
    usage = CodebookUsage.from_counts(counts, (4, 2, 4, 4))
    assert usage.entropy_nats.tolist() == pytest.approx([math.log(2), 0, math.log(4), 0])
    assert usage.perplexity.tolist() == pytest.approx([2, 1, 4, 1])
    assert usage.usage.tolist() == pytest.approx([0.5, 0.5, 1, 0])


def test_usage_does_not_depend_on_the_order_or_number_of_codes():
    counts = torch.tensor([[1, 5, 3, 0]])
    base = CodebookUsage.from_counts(counts, (4,))
    for other in (counts.flip(1), counts * 7):
        assert CodebookUsage.from_counts(other, (4,)).perplexity.item() == pytest.approx(base.perplexity.item())
