"""Finite scalar quantization: by hand, against vector-quantize-pytorch, and what does not fit."""

import math

import pytest
import torch
from vector_quantize_pytorch import FSQ

from depthq import ScalarQuantizer
from depthq.quantizers.scalar import balanced_factors, values_of


def test_literal_values_and_codes():
    """3 and 4 values: -1, 0, 1 and -1, -1/2, 0, 1/2; the first digit is the least significant."""
    quantizer = ScalarQuantizer(2, 1, 12, values_per_dim=(3, 4))
    out = quantizer(torch.tensor([[0.0, 0.0], [9.0, 9.0], [-9.0, -9.0], [-9.0, 9.0]]))
    assert out.quantized.tolist() == [[0, 0], [1, 0.5], [-1, -1], [-1, 0.5]]
    assert out.codes.flatten().tolist() == [1 + 3 * 2, 2 + 3 * 3, 0, 0 + 3 * 3]


@pytest.mark.parametrize("values", [(3,), (4,), (5,), (8,), (16,), (8, 4, 4), (5, 3)])
def test_every_code_is_reached_and_decodes_to_another_point(values):
    """From latents that the bound takes near each point."""
    quantizer = ScalarQuantizer(len(values), 1, math.prod(values), values_per_dim=values).eval()
    points = quantizer.codebooks[0]
    assert len(points.unique(dim=0)) == math.prod(values)
    halves = torch.tensor([value // 2 for value in values])
    half_range, offset = (torch.tensor(values) - 1) / 2, torch.tensor([0.5 * (value % 2 == 0) for value in values])
    shares = ((points * halves + offset) / half_range).clamp(-0.999, 0.999)
    latents = torch.atanh(shares) - torch.atanh(offset / half_range)
    assert quantizer.encode(latents).flatten().tolist() == list(range(math.prod(values)))


@pytest.mark.parametrize(("num_codebooks", "size"), [(1, 32), (5, 128), (3, 512)])
@pytest.mark.parametrize("training", [True, False])
def test_equals_vector_quantize_pytorch_bit_for_bit(num_codebooks, size, training):
    values = values_of(size)
    dim = num_codebooks * len(values)
    peer = FSQ(list(values), dim=dim, num_codebooks=num_codebooks, keep_num_codebooks_dim=True).train(training)
    quantizer = ScalarQuantizer(dim, num_codebooks, size, axis=-1).train(training)
    x = 2 * torch.randn(4, 500, dim, generator=torch.Generator().manual_seed(0))
    x, y = x.requires_grad_(), x.detach().clone().requires_grad_()
    out, (quantized, codes) = quantizer(x), peer(y)
    upstream = torch.randn(x.shape)
    out.quantized.backward(upstream)
    quantized.backward(upstream)
    assert torch.equal(out.codes.movedim(1, -1), codes.long())
    assert torch.equal(out.quantized, quantized)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-7)
    assert torch.equal(quantizer.decode(out.codes), peer.indices_to_codes(codes))


def test_there_is_no_loss():
    out = ScalarQuantizer(6, 3, 12)(torch.randn(9, 6))
    assert out.loss == out.commitment_loss == out.codebook_loss == out.entropy_loss == 0


@pytest.mark.parametrize(
    ("size", "count", "factors"),
    [
        (128, 3, (8, 4, 4)),
        (512, 3, (8, 8, 8)),
        (32, 2, (8, 4)),
        (1000, 4, (8, 5, 5, 5)),
        (7, 1, (7,)),
        (60, 2, (10, 6)),
    ],
)
def test_codebook_size_is_cut_into_the_nearest_factors(size, count, factors):
    assert balanced_factors(size, count) == factors
    assert ScalarQuantizer(2 * count, 2, size).values_per_dim == factors


@pytest.mark.parametrize(
    ("size", "values"),
    [
        (4, (4,)),
        (11, (11,)),
        (32, (8, 4)),
        (128, (8, 4, 4)),
        (512, (8, 8, 8)),
        (1000, (8, 5, 5, 5)),
        (1024, (8, 8, 4, 4)),
        (3125, (5,) * 5),
        (15625, (5,) * 6),
        (21875, (7, 5, 5, 5, 5, 5)),
    ],
)
def test_the_number_of_dimensions_follows_from_the_codebook_size(size, values):
    assert values_of(size) == values


def test_every_product_of_few_values_can_be_cut():
    """All of at most 10,000, from their definition: K is a product if it is 3 to 16 times 1 or another one."""
    products = {1}
    for size in range(3, 10_001):
        if any(size % value == 0 and size // value in products for value in range(3, 17)):
            products.add(size)
            assert math.prod(values_of(size)) == size
            assert all(3 <= value <= 16 for value in values_of(size))


@pytest.mark.parametrize("size", [1, 2, 17, 127, 34])
def test_codebook_size_that_cannot_be_cut_is_refused(size):
    message = (
        f"codebook_size must be a product of factors from 3 to 16 for a scalar quantizer; got {size}; powers of two"
    )
    with pytest.raises(ValueError, match=message):
        values_of(size)


def test_codebook_size_beyond_the_bound_is_refused_before_it_is_cut():
    with pytest.raises(
        ValueError, match=r"codebook_size must be at most 16777216 .* got 18446744073709551616; take more"
    ):
        values_of(2**64)


@pytest.mark.parametrize(
    ("arguments", "values", "message"),
    [
        ((7, 3, 12), None, "dim must be a multiple of num_codebooks=3; got 7"),
        ((0, 3, 12), None, "dim must be at least 1; got 0"),
        ((6, 0, 12), None, "num_codebooks must be at least 1; got 0"),
        ((6, 3, [12, 12, 12]), None, r"codebook_size must be an integer; got \[12, 12, 12\]"),
        ((24, 1, 2**64), None, r"codebook_size must be at most 16777216 = 2\*\*24, .* take more codebooks"),
        ((6, 3, 8), None, "codebook_size must be a product of 2 numbers of values, each at least 3; got 8; change"),
        ((6, 3, 12), (4, 3, 1), r"values_per_dim must have one entry for each of the 2 dimensions .* got \[4, 3, 1\]"),
        (
            (6, 3, 12),
            (6, 2),
            r"values_per_dim must be at least 3 each; got \[6, 2\]; for two values .* BinaryQuantizer",
        ),
        ((6, 3, 12), (4, 4), r"values_per_dim must multiply to codebook_size=12; got \[4, 4\]"),
        ((6, 3, 12), (4, 3.0), "values_per_dim must be an integer; got 3.0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, values, message):
    with pytest.raises(ValueError, match=message):
        ScalarQuantizer(*arguments, values_per_dim=values)


def test_state_of_other_values_is_refused():
    message = r"values_per_dim must be that of the state to load, \[4, 8\]; got \[8, 4\]; construct the quantizer as"
    with pytest.raises(ValueError, match=message):
        ScalarQuantizer(4, 2, 32).load_state_dict(ScalarQuantizer(4, 2, 32, values_per_dim=(4, 8)).state_dict())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_broken_latents_get_codes_that_exist(value):
    """In eval, where they raise nothing."""
    quantizer = ScalarQuantizer(2, 1, 12).eval()
    quantizer.decode(quantizer.encode(torch.full((3, 2), value)))
