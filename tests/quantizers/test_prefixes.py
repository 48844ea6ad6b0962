"""Codes decode from any prefix of the codebooks, and quantizers can be trained for that."""

import pytest
import torch

from depthq import BinaryQuantizer, DepthwiseQuantizer, ResidualQuantizer, ScalarQuantizer, SharedQuantizer

M = 3
SLICED = {
    "depthwise": lambda **options: DepthwiseQuantizer(6, M, 8, **options),
    "depthwise, slices of different width": lambda **options: DepthwiseQuantizer(
        6, M, (8, 4, 8), codebook_dim=(1, 3, 2), **options
    ),
    "depthwise, padded": lambda **options: DepthwiseQuantizer(7, M, 8, **options),
    "shared": lambda **options: SharedQuantizer(6, M, 8, **options),
}
SUMMED = {
    "shared, summed": lambda **options: SharedQuantizer(6, M, 8, combine="sum", **options),
    "residual": lambda **options: ResidualQuantizer(6, M, 8, **options),
}
FIXED = {
    "scalar": lambda **options: ScalarQuantizer(6, M, 16, **options),
    "binary": lambda **options: BinaryQuantizer(6, M, 4, **options),
}


def latents(quantizer, batch=4, positions=(5, 2)):
    return torch.randn(batch, quantizer.dim, *positions)


def trained(make, **options):
    torch.manual_seed(0)
    quantizer = make(**options)
    quantizer(latents(quantizer))
    return quantizer


def columns_kept(name, quantizer, num_kept):
    widths = {"depthwise, slices of different width": (1, 3, 2), "depthwise, padded": (3, 3, 1)}
    return sum(widths.get(name, (quantizer.out_dim // M,) * M)[:num_kept])


@pytest.mark.parametrize("name", [*SLICED, *FIXED])
@pytest.mark.parametrize("num_kept", [1, 2, 3])
def test_prefix_of_slices_leaves_the_other_columns_zero(name, num_kept):
    quantizer = trained((SLICED | FIXED)[name]).eval()
    codes = quantizer.encode(latents(quantizer))
    whole, part = quantizer.decode(codes), quantizer.decode(codes[:, :num_kept])
    kept = columns_kept(name, quantizer, num_kept)
    assert torch.equal(part[:, :kept], whole[:, :kept])
    assert not part[:, kept:].any()


@pytest.mark.parametrize("name", SUMMED)
def test_prefix_of_a_sum_is_the_sum_of_the_first_codewords(name):
    quantizer = trained(SUMMED[name]).eval()
    codes = quantizer.encode(torch.randn(20, 6))
    for num_kept in (1, 2, 3):
        expected = sum(quantizer.codebooks[m][codes[:, m]] for m in range(num_kept))
        torch.testing.assert_close(quantizer.decode(codes[:, :num_kept]), expected)


@pytest.mark.parametrize("name", [*SLICED, *SUMMED, *FIXED])
def test_dropout_shows_each_image_a_prefix_of_its_codes(name):
    quantizer = trained((SLICED | SUMMED | FIXED)[name], codebook_dropout=0.75)
    out = quantizer(latents(quantizer, batch=400))
    assert out.codes.shape == (400, M, 5, 2)
    with torch.no_grad():
        prefixes = torch.stack([quantizer.decode(out.codes[:, :num_kept]) for num_kept in (1, 2, 3)])
    is_prefix = (prefixes == out.quantized).flatten(2).all(2)  # (3, 400)
    assert is_prefix.any(0).all()
    shares = is_prefix.double().mean(1)
    assert shares.tolist() == pytest.approx([0.375, 0.375, 0.25], abs=0.1)  # 4 standard deviations


@pytest.mark.parametrize("name", SLICED)
def test_no_gradient_comes_from_what_is_left_out(name):
    quantizer = trained(SLICED[name], commitment_weight=0)
    x = latents(quantizer).requires_grad_()
    out = quantizer(x)
    kept = quantizer.keep(out.quantized, out.codes, torch.tensor([1, 2, 3, 1]))
    (slope,) = torch.autograd.grad(kept.sum(), x)
    if name == "shared":  # each codebook passes its gradient to the one vector
        assert slope[:, 0, 0, 0].tolist() == [1, 2, 3, 1]
    else:
        assert torch.equal(slope != 0, torch.ones_like(kept).where(kept != 0, 0) != 0)


@pytest.mark.parametrize("name", [*SLICED, *SUMMED, *FIXED])
def test_kept_codebooks_have_the_dtype_of_all(name):
    quantizer = trained((SLICED | SUMMED | FIXED)[name])
    x = latents(quantizer).bfloat16().requires_grad_()
    out = quantizer(x)
    kept = quantizer.keep(out.quantized, out.codes, torch.tensor([1, 2, 3, 1]))
    assert kept.dtype == torch.bfloat16
    assert torch.equal(kept[2], out.quantized[2])
    assert torch.equal(kept[:1], quantizer.decode(out.codes[:1, :1]).bfloat16())
    kept.float().sum().backward()
    assert x.grad.isfinite().all()


def test_dropout_is_for_training_alone_and_masked_positions_stay_zero():
    quantizer = trained(SLICED["depthwise"], codebook_dropout=0.9)
    x = latents(quantizer)
    mask = torch.rand(4, 5, 2) < 0.5
    assert not quantizer(x, mask).quantized.movedim(1, -1)[~mask].any()
    quantizer.eval()
    assert torch.equal(quantizer(x).quantized, quantizer.decode(quantizer.encode(x)))


def test_dropped_codebooks_go_on_learning():
    plain, dropping = (trained(SLICED["depthwise"], codebook_dropout=dropout) for dropout in (0.0, 0.9))
    for quantizer in (plain, dropping):
        torch.manual_seed(1)
        x = latents(quantizer)
        quantizer(x), quantizer(x)
    assert torch.equal(plain.codebooks, dropping.codebooks)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_out_of_range_is_named(dropout):
    for make in (SLICED["depthwise"], *FIXED.values()):
        with pytest.raises(ValueError, match=r"codebook_dropout must lie in \[0, 1\); got"):
            make(codebook_dropout=dropout)
