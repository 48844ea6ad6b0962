"""What every quantizer promises that has codes."""

import math

import pytest
import torch

from depthq.quantizers import NonFiniteLatentsError


def APPLIES_TO(row):
    return row.has_codes


@pytest.mark.parametrize(("positions", "axis"), [((), 1), ((7,), -1), ((7,), 1), ((3, 4, 5), 1)])
def test_any_rank_and_axis_decodes(make, latents, positions, axis):
    quantizer = make(axis=axis)
    x = latents(quantizer, *positions, batch=9)
    out = quantizer(x)
    assert torch.equal(quantizer.decode(out.codes), out.quantized)
    assert torch.equal(quantizer.eval().decode(quantizer.encode(x)), quantizer(x).quantized)


def test_codes_decode_to_what_forward_returned(trained, latents, mode):
    trained.train(mode)
    for seed in range(3):
        out = trained(latents(trained, 6, 5, seed=seed))
        assert torch.equal(trained.decode(out.codes), out.quantized)


def test_decoding_does_not_depend_on_the_batch(trained, latents):
    codes = trained.eval().encode(latents(trained, 6, 5, batch=16))
    together = trained.decode(codes)
    one_by_one = torch.cat([trained.decode(codes[i : i + 1]) for i in range(16)])
    assert torch.equal(together, one_by_one)


def test_encode_and_forward_agree_in_eval(trained, latents):
    x = latents(trained, 6, 5)
    out = trained.eval()(x)
    assert torch.equal(trained.encode(x), out.codes)
    assert torch.equal(trained.decode(trained.encode(x)), out.quantized)


def test_codes_are_those_of_the_nearest_codewords(row, trained, latents):
    x = latents(trained, 6, 5)
    rows, codes = rows_of(x), rows_of(trained.eval().encode(x))
    seen = row.seen(trained, rows, row.codewords(trained, codes))
    for m, codebook in enumerate(row.codebooks(trained)):
        codebook = codebook.detach()[:, : seen[m].shape[1]]
        assert torch.equal(codes[:, m], torch.cdist(seen[m].double(), codebook.double()).argmin(1))


def test_decoding_under_autocast_changes_nothing(trained, latents):
    codes = trained.eval().encode(latents(trained, 6, 5))
    with torch.autocast("cpu", torch.bfloat16):
        decoded = trained.decode(codes)
    assert torch.equal(decoded, trained.decode(codes))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_latents_raise_before_any_state_changes(trained, latents, snapshot, same, value):
    before = snapshot(trained)
    x = latents(trained, 6, 5)
    x[2, 1, 3, 4] = value
    with pytest.raises(NonFiniteLatentsError, match="x must be finite in training; got NaN or infinity"):
        trained.train()(x)
    assert same(trained, before)
    trained.eval()(x)  # nothing can be spoiled here


def test_check_of_finiteness_can_be_turned_off(make, latents):
    quantizer = make(check_finite=False)
    x = latents(quantizer, 6, 5)
    x[0, 0, 0, 0] = math.nan
    quantizer(x)


@pytest.mark.parametrize("positions", [(0, 5), (6, 5)])
def test_empty_batch_decodes(trained, latents, positions):
    x = latents(trained, *positions, batch=0 if all(positions) else 4)
    assert trained.decode(trained.encode(x)).shape == trained(x).quantized.shape


def test_masked_positions_decode_to_zero(trained, latents):
    x, mask = latents(trained, 7), torch.rand(4, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    out = trained(x, mask=mask)
    decoded = trained.decode(out.codes, mask=mask)
    if getattr(trained, "project_out", None) is None:
        assert torch.equal(decoded, out.quantized)
    else:  # a matrix product rounds as its size has it
        torch.testing.assert_close(decoded, out.quantized)
    assert (out.quantized.movedim(1, -1)[~mask] == 0).all()


def test_masked_codes_need_the_mask_to_decode(trained, latents):
    out = trained.eval()(latents(trained, 7), mask=torch.zeros(4, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="got -1; -1 marks a masked position: pass the mask"):
        trained.decode(out.codes)


def test_mask_that_does_not_fit_the_codes_is_refused(trained, latents):
    codes = trained.encode(latents(trained, 7))
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(4, 7\), .* got torch.bool of shape \(4, 6\)"):
        trained.decode(codes, mask=torch.ones(4, 6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.float(), r"codes must be int64; got torch.float32; convert with .long\(\)"),
        (lambda c: torch.cat([c, c], 1), r"codes must be \(B, M, \.\.\.\) with M .* got shape \(4, 6, 7\)"),
        (lambda c: c[0, :, 0][0], r"codes must be \(B, M, \.\.\.\) with M .* got shape \(\)"),
        (lambda c: c + 20, r"codes of codebook 0 must lie in \[0, \d+\); got \d+; were they made by another model"),
        (lambda c: c - 20, r"codes of codebook 0 must lie in \[0, \d+\); got -\d+"),
    ],
)
def test_codes_that_do_not_fit_are_refused(trained, latents, spoil, message):
    with pytest.raises(ValueError, match=message):
        trained.decode(spoil(trained.encode(latents(trained, 7))))


def rows_of(x):
    """(B, C, *positions) as (N, C)."""
    return x.movedim(1, -1).flatten(0, -2)
