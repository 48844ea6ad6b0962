"""Binary quantization: by hand, against vector-quantize-pytorch, and what does not fit."""

import math

import pytest
import torch
from vector_quantize_pytorch import LFQ

from depthq import BinaryQuantizer
from depthq.quantizers.kept_state import StateMismatchError


def test_literal_signs_and_codes():
    """The first bit is the least significant, and zero counts as negative."""
    x = torch.tensor([[0.1, -3.0, 2.0, 7.0], [0.0, 0.0, -1.0, 1e-20]])
    out = BinaryQuantizer(4, 2, 4, on_sphere=False)(x)
    assert out.quantized.tolist() == [[1, -1, 1, 1], [-1, -1, -1, 1]]
    assert out.codes.tolist() == [[1, 3], [0, 2]]
    on_sphere = BinaryQuantizer(4, 1, 16)(x)
    assert on_sphere.quantized.tolist() == [[0.5, -0.5, 0.5, 0.5], [-0.5, -0.5, -0.5, 0.5]]
    assert on_sphere.codes.tolist() == [[1 + 4 + 8], [8]]


@pytest.mark.parametrize("on_sphere", [True, False])
@pytest.mark.parametrize(("num_codebooks", "size"), [(1, 16), (5, 128)])
def test_agrees_with_vector_quantize_pytorch(on_sphere, num_codebooks, size):
    """Its first bit is the most significant, so it gets each slice in reverse."""
    num_bits = size.bit_length() - 1
    dim = num_codebooks * num_bits
    peer = LFQ(
        dim=dim, codebook_size=size, num_codebooks=num_codebooks, keep_num_codebooks_dim=True, spherical=on_sphere,
        commitment_loss_weight=1.0, entropy_loss_weight=0.0,
    )  # fmt: skip
    quantizer = BinaryQuantizer(dim, num_codebooks, size, axis=-1, on_sphere=on_sphere)
    x = torch.randn(4, 50, dim, generator=torch.Generator().manual_seed(0))
    x, y = x.requires_grad_(), x.detach().clone().requires_grad_()

    def reverse(rows):
        return rows.unflatten(-1, (num_codebooks, num_bits)).flip(-1).flatten(-2)

    out = quantizer(x)
    quantized, codes, loss = peer(reverse(y))
    assert torch.equal(out.codes.movedim(1, -1), codes.long())
    torch.testing.assert_close(out.quantized, reverse(quantized))
    torch.testing.assert_close(out.commitment_loss / num_codebooks, loss)
    upstream = torch.randn(x.shape)
    (out.quantized * upstream).sum().backward()
    (reverse(quantized) * upstream).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("on_sphere", [True, False])
def test_entropies_agree_with_vector_quantize_pytorch(on_sphere):
    """It sums over all codewords. A vector's entropy is the same; the batch's where bits are independent: here each
    pattern of signs comes once for each of several sizes of the entries, the same for all."""
    peer = LFQ(dim=3, codebook_size=8, spherical=on_sphere)
    signs = torch.tensor([[(code >> bit & 1) * 2.0 - 1 for bit in range(3)] for code in range(8)])
    x = (signs * torch.tensor([1.0, 1.2, 0.7]))[None]
    _, parts = peer(x, inv_temperature=2.0, return_loss_breakdown=True)
    quantizer = BinaryQuantizer(3, 1, 8, axis=-1, on_sphere=on_sphere, entropy_weight=0.5, inverse_temperature=2.0)
    expected = 0.5 * (parts.per_sample_entropy - parts.batch_entropy)
    torch.testing.assert_close(quantizer(x).entropy_loss, expected, rtol=1e-4, atol=1e-5)


def test_entropy_of_the_batch_is_bounded_from_above():
    """Bits that always agree: each is even, so ours sees two bits where there is one."""
    x = torch.tensor([[5.0, 5.0], [-5.0, -5.0]])
    quantizer = BinaryQuantizer(2, 1, 4, entropy_weight=1.0, inverse_temperature=100.0)
    assert quantizer(x).entropy_loss.item() == pytest.approx(-2 * math.log(2))


def test_entropy_loss_is_lowest_for_certain_and_even_bits():
    def loss(x):
        return BinaryQuantizer(1, 1, 2, on_sphere=False, entropy_weight=1.0)(torch.tensor(x)).entropy_loss.item()

    assert loss([[9.0], [-9.0]]) == pytest.approx(-math.log(2))
    assert loss([[9.0], [9.0]]) == pytest.approx(0, abs=1e-6)  # certain, all alike
    assert loss([[0.0], [0.0]]) == pytest.approx(0, abs=1e-6)  # even, all uncertain


def test_entropy_loss_has_a_finite_gradient_where_bits_are_wholly_certain():
    x = torch.full((4, 3), 1e6, requires_grad=True)
    BinaryQuantizer(3, 1, 8, on_sphere=False, inverse_temperature=100.0)(x).loss.backward()
    assert x.grad.isfinite().all()


def test_entropy_loss_brings_dead_bits_back_to_life():
    """All vectors on one side of each bit: descent on this loss alone spreads them over the codes."""
    x = (0.3 + 0.1 * torch.randn(256, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    quantizer = BinaryQuantizer(3, 1, 8, entropy_weight=1.0)
    optimizer = torch.optim.Adam([x], 0.02)
    before = quantizer(x).perplexity
    for _ in range(100):
        optimizer.zero_grad()
        quantizer(x).entropy_loss.backward()
        optimizer.step()
    assert before < 2
    assert quantizer(x).perplexity > 4


def test_latents_of_length_zero_are_dealt_with():
    x = torch.zeros(2, 6, requires_grad=True)
    out = BinaryQuantizer(6, 2, 8)(x)
    (out.loss + out.quantized.sum()).backward()
    assert out.codes.tolist() == [[0, 0], [0, 0]]
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((6, 2, 6), {}, "codebook_size must be a power of two, at least 2, for binary codes; got 6"),
        ((6, 2, 1), {}, "codebook_size must be a power of two, at least 2, for binary codes; got 1"),
        (
            (72, 2, 2**36),
            {},
            r"codebook_size must be at most 16777216 = 2\*\*24, .* are counted; got 68719476736; take more codebooks",
        ),
        (
            (64, 1, 2**64),
            {},
            r"codebook_size must be at most 16777216 .* got 18446744073709551616; take more codebooks",
        ),
        ((6, 2, 8.0), {}, "codebook_size must be an integer; got 8.0"),
        ((6, 0, 8), {}, "num_codebooks must be at least 1; got 0"),
        ((8, 2, 8), {}, r"dim must be num_codebooks \* log2\(codebook_size\) = 6; got 8; project to that size first"),
        ((6, 2, 8), {"entropy_weight": -0.1}, "entropy_weight must be finite and at least 0; got -0.1"),
        ((6, 2, 8), {"inverse_temperature": 0.0}, "inverse_temperature must be finite and positive; got 0.0"),
        ((6, 2, 8), {"commitment_weight": -0.1}, "commitment_weight must be finite and at least 0; got -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        BinaryQuantizer(*arguments, **options)


def test_largest_codebook_size_works():
    quantizer = BinaryQuantizer(24, 1, 2**24)
    out = quantizer(torch.ones(2, 24))
    assert out.codes.tolist() == [[2**24 - 1]] * 2
    assert torch.equal(quantizer.decode(out.codes), out.quantized)


@pytest.mark.parametrize("saved", [True, False])
def test_state_of_codewords_elsewhere_is_refused(saved):
    """On the sphere or not: the shapes are the same."""
    state = BinaryQuantizer(6, 2, 8, on_sphere=saved).state_dict()
    message = (
        f"on_sphere must be that of the state to load, {saved}; got {not saved}; construct the quantizer as the one"
    )
    with pytest.raises(StateMismatchError, match=message):
        BinaryQuantizer(6, 2, 8, on_sphere=not saved).load_state_dict(state)
    BinaryQuantizer(6, 2, 8, on_sphere=saved).load_state_dict(state)


def test_what_has_no_state_to_load_is_not_refused():
    """As where a part of a model is loaded."""
    model = torch.nn.ModuleDict({"quantizer": BinaryQuantizer(6, 2, 8, on_sphere=False), "head": torch.nn.Linear(6, 1)})
    model.load_state_dict({"head.bias": torch.ones(1)}, strict=False)
    assert model["head"].bias.item() == 1


def test_state_on_the_sphere_keeps_its_names():
    """Of which fingerprints of models are made."""
    names = set(BinaryQuantizer(6, 2, 8).state_dict())
    assert names == {"state.recent_count", "state.codebook_sizes", "state.values_per_dim"}
