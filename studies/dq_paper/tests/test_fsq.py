"""FSQ of vector-quantize-pytorch keeps the contract that a DQ-AE asks of its quantizers."""

import math
import re
import sys
from dataclasses import replace

import pytest
import torch

from depthq import DQAE
from depthq.models import PRESETS, QUANTIZERS
from studies.dq_paper.fsq import LEVELS, fsq

pytest.importorskip("vector_quantize_pytorch")


@pytest.fixture(params=[(1, 32), (1, 128), (5, 128), (3, 512)], ids=lambda sizes: "M{}-K{}".format(*sizes))
def sizes(request):
    return request.param


@pytest.fixture
def quantizer(sizes):
    return fsq(*sizes, codebook_dim=4, options={})


@pytest.fixture
def latents(quantizer):
    return 2 * torch.randn(4, quantizer.dim, 6, 5, generator=torch.Generator().manual_seed(0))


def test_levels_multiply_to_the_codebook_size():
    assert {size: math.prod(levels) for size, levels in LEVELS.items()} == {size: size for size in LEVELS}


def test_codes_are_whole_numbers_of_their_codebooks(quantizer, latents, sizes):
    num_codebooks, size = sizes
    out = quantizer(latents)
    assert quantizer.codebook_sizes == out.codebook_sizes == (size,) * num_codebooks
    assert out.codes.dtype == torch.int64
    assert out.codes.shape == (4, num_codebooks, 6, 5)
    assert 0 <= out.codes.min() <= out.codes.max() < size
    assert out.usage.shape == out.perplexity.shape == (num_codebooks,)


def test_every_code_can_be_reached(quantizer, sizes):
    """Each codeword is its own nearest one."""
    num_codebooks, size = sizes
    codes = torch.arange(size).expand(1, num_codebooks, size)
    quantized = quantizer.decode(codes)
    assert len(quantized[0, :].T.unique(dim=0)) == size


def test_codes_decode_to_what_forward_returned(quantizer, latents):
    out = quantizer(latents)
    assert out.quantized.shape == latents.shape
    assert torch.equal(quantizer.encode(latents), out.codes)
    assert torch.equal(quantizer.decode(out.codes), out.quantized)


def test_gradient_reaches_the_latents_and_there_is_no_other_loss(quantizer, latents):
    latents.requires_grad_()
    out = quantizer(latents)
    assert out.loss == out.commitment_loss == out.codebook_loss == 0
    out.quantized.square().sum().backward()
    assert latents.grad.isfinite().all()
    assert (latents.grad != 0).float().mean() > 0.5


def test_dtype_is_kept_and_positions_may_have_any_rank(quantizer):
    out = quantizer(torch.randn(2, quantizer.dim, 7, dtype=torch.bfloat16))
    assert out.quantized.dtype == torch.bfloat16
    assert out.codes.shape == (2, len(quantizer.codebook_sizes), 7)


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_auto_encoder_takes_it_by_name(num_codebooks):
    model = DQAE(replace(PRESETS["tiny"], quantizer="fsq", num_codebooks=num_codebooks, codebook_size=(32, 128))).eval()
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    codes = model.encode(images)
    assert codes.num_bits() == num_codebooks * (2 * 2 * 5 + 4 * 4 * 7)
    assert model.decode(codes).shape == images.shape


def test_other_codebook_sizes_are_refused():
    with pytest.raises(ValueError, match="codebook_size must be one of 32, 128, 512 for fsq; got 64"):
        fsq(5, 64, codebook_dim=4, options={})


def test_missing_package_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    message = "quantizer 'fsq' must have vector-quantize-pytorch to run; it is not installed; pip install "
    with pytest.raises(ValueError, match=re.escape(message + "'depthq[studies]'")):
        QUANTIZERS["fsq"](5, 128, 4, {})
