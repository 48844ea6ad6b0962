"""No quantizer: latents pass, and there are no codes."""

import pytest
import torch

from depthq.quantizers import NoQuantizer


def test_latents_pass_bit_for_bit_with_their_gradient():
    x = torch.randn(4, 6, 5, 5, requires_grad=True)
    out = NoQuantizer(6)(x)
    upstream = torch.randn_like(x)
    out.quantized.backward(upstream)
    assert torch.equal(out.quantized, x)
    assert torch.equal(x.grad, upstream)


def test_there_are_no_codes_and_no_losses():
    quantizer = NoQuantizer(6)
    out = quantizer(torch.randn(4, 6, 5, 5))
    assert quantizer.codebook_sizes == out.codebook_sizes == ()
    assert out.codes.shape == quantizer.encode(torch.randn(4, 6, 5, 5)).shape == (4, 0, 5, 5)
    assert out.codes.dtype == torch.int64
    assert out.loss == out.commitment_loss == out.codebook_loss == out.entropy_loss == 0
    assert quantizer.health() is None


def test_it_says_why_it_cannot_decode():
    message = "quantizer must have codebooks to decode; got NoQuantizer, whose latents are in no codes"
    quantizer = NoQuantizer(6)
    with pytest.raises(ValueError, match=message):
        quantizer.decode(quantizer.encode(torch.randn(4, 6)))


def test_dim_must_be_a_size():
    with pytest.raises(ValueError, match="dim must be at least 1; got 0"):
        NoQuantizer(0)
