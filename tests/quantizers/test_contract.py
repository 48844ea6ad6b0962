"""What every quantizer promises, also one without codes: one table, all quantizers."""

import copy
import math

import pytest
import torch
from safetensors.torch import load_model, save_model

LAYOUTS = {"NC": ((), 1), "BTC": ((7,), -1), "BCT": ((7,), 1), "BCHW": ((6, 5), 1), "BCTHW": ((3, 4, 5), 1)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_rank_and_axis_keeps_its_shape(make, latents, layout):
    positions, axis = LAYOUTS[layout]
    quantizer = make(axis=axis)
    x = latents(quantizer, *positions, batch=9)
    out = quantizer(x)
    assert out.quantized.movedim(axis, -1).shape == (9, *positions, quantizer.out_dim)
    assert out.codes.shape == (9, len(out.codebook_sizes), *positions)
    assert out.codes.dtype == torch.int64


def test_encode_does_not_learn_in_training(trained, latents, snapshot, same):
    before = snapshot(trained)
    trained.train().encode(latents(trained, 6, 5))
    assert same(trained, before)


def test_gradient_passes_straight_through(row, trained, latents):
    """That of what the codebooks saw, as if it had not been rounded."""
    x = latents(trained, 6, 5).requires_grad_()
    out = trained.eval()(x)
    upstream = torch.randn_like(out.quantized)
    (grad,) = torch.autograd.grad(out.quantized, x, upstream)
    rows, codes = rows_of(x), rows_of(out.codes)
    joined = row.join(trained, rows, row.seen(trained, rows, row.codewords(trained, codes)))
    torch.testing.assert_close(grad, torch.autograd.grad(joined, x, rows_of(upstream))[0])


def test_loss_is_the_weighted_sum_of_its_terms(trained, latents):
    out = trained(latents(trained, 6, 5))
    weighted = trained.commitment_weight * out.commitment_loss
    torch.testing.assert_close(out.loss, out.codebook_loss + weighted + out.entropy_loss)


def test_commitment_gradient_is_that_of_autograd(row, trained, latents):
    """Written out in plain operations: each codebook's mean squared distance, codewords held constant."""
    x = latents(trained, 6, 5).requires_grad_()
    out = trained.eval()(x)
    if not row.commits:
        assert out.commitment_loss == 0
        return
    (grad,) = torch.autograd.grad(out.commitment_loss, x)
    rows = rows_of(x)
    codewords = row.codewords(trained, rows_of(out.codes))
    loss = sum(
        (seen - codeword[:, : seen.shape[1]]).square().sum() / codeword.numel()
        for seen, codeword in zip(row.seen(trained, rows, codewords), codewords, strict=True)
    )
    torch.testing.assert_close(out.commitment_loss, loss)
    torch.testing.assert_close(grad, torch.autograd.grad(loss, x)[0])


def test_state_is_frozen_in_eval(trained, latents, snapshot, same):
    before = snapshot(trained)
    trained.eval()(latents(trained, 6, 5, seed=9))
    assert same(trained, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_input_is_quantized_in_float32(trained, latents, dtype, mode):
    x = latents(trained, 6, 5).to(dtype)
    exact = copy.deepcopy(trained).train(mode)(x.float())
    out = trained.train(mode)(x)
    assert out.quantized.dtype == dtype
    assert torch.equal(out.codes, exact.codes)
    assert torch.equal(out.quantized, exact.quantized.to(dtype))
    assert torch.equal(out.commitment_loss, exact.commitment_loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(trained, latents, dtype, snapshot, same):
    x = latents(trained, 6, 5)
    expected_module = copy.deepcopy(trained)
    expected = expected_module(x)
    with torch.autocast("cpu", dtype):
        out = trained(x)
        codes = trained.encode(x)
    assert torch.equal(out.quantized, expected.quantized)
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(codes, expected_module.encode(x))
    assert same(trained, snapshot(expected_module))


def test_codebooks_stay_float32_in_a_half_precision_module(trained, latents, snapshot, same):
    before = snapshot(trained)
    network = torch.nn.Sequential(trained).bfloat16()
    assert same(trained, before)
    assert network(latents(trained, 6, 5).bfloat16()).quantized.dtype == torch.bfloat16


def test_large_float16_latents_give_a_finite_loss(quantizer, latents):
    x = (300 * latents(quantizer, 6, 5)).half()  # squares overflow float16
    for _ in range(2):
        assert quantizer(x).loss.isfinite()


def test_finite_latents_whose_sum_overflows_are_accepted(quantizer, latents):
    quantizer(torch.full_like(latents(quantizer, 6, 5), 3e38))


@pytest.mark.parametrize("positions", [(0, 5), (6, 5)])
def test_empty_batch_changes_nothing(trained, latents, snapshot, same, positions):
    before = snapshot(trained)
    x = latents(trained, *positions, batch=0 if all(positions) else 4).requires_grad_()
    out = trained.train()(x)
    (out.loss + out.quantized.sum()).backward()
    assert out.loss == 0
    assert out.quantized.shape[0] == x.shape[0]
    assert same(trained, before)


def test_mask_equals_running_on_the_valid_rows_alone(make, latents, snapshot, same):
    masked, compressed = make(axis=-1), make(axis=-1)
    for seed in range(3):
        x = latents(masked, 11, seed=seed).requires_grad_()
        mask = torch.rand(4, 11, generator=torch.Generator().manual_seed(seed)) < 0.6
        with torch.no_grad():
            x[~mask] = math.nan  # padding may hold anything
        rows = x.detach()[mask].requires_grad_()
        out, expected = masked(x, mask=mask), compressed(rows)
        assert torch.equal(out.codes.movedim(1, -1)[mask], expected.codes)
        assert torch.equal(out.quantized[mask], expected.quantized)
        assert torch.equal(out.loss, expected.loss)
        assert (out.codes.movedim(1, -1)[~mask] == -1).all()
        assert (out.quantized[~mask] == 0).all()
        assert torch.equal(out.perplexity, expected.perplexity)
        (out.loss + out.quantized.square().sum()).backward()
        (expected.loss + expected.quantized.square().sum()).backward()
        assert torch.equal(x.grad[mask], rows.grad)
        assert (x.grad[~mask] == 0).all()
        assert same(masked, snapshot(compressed))


def test_wholly_masked_batch_changes_nothing(trained, latents, snapshot, same):
    before = snapshot(trained)
    out = trained(latents(trained, 7), mask=torch.zeros(4, 7, dtype=torch.bool))
    assert (out.codes == -1).all()
    assert (out.quantized == 0).all()
    assert out.loss == 0
    assert same(trained, before)


def test_encode_takes_the_mask_of_forward(trained, latents):
    x, mask = latents(trained, 7), torch.rand(4, 7) < 0.5
    out = trained.eval()(x, mask=mask)
    assert torch.equal(trained.encode(x, mask=mask), out.codes)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            torch.ones(4, 6, dtype=torch.bool),
            r"mask must be bool of shape \(4, 7\), .* got torch.bool of shape \(4, 6\)",
        ),
        (torch.ones(4, 7), r"mask must be bool of shape \(4, 7\), .* got torch.float32 of shape \(4, 7\)"),
    ],
)
def test_mask_that_does_not_fit_is_refused(trained, latents, mask, message):
    x = latents(trained, 7)
    for call in (trained, trained.encode):
        with pytest.raises(ValueError, match=message):
            call(x, mask=mask)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.long(), r"x must be floating point; got torch.int64; convert to float32"),
        (lambda x: x[:, 1:], r"dim must be the size of axis 1; got dim=\d+ and x of shape \(4, \d+, 7\)"),
        (lambda x: x[:, 0, 0], r"x must be batch first with the split axis 1 behind it; got shape \(4,\)"),
    ],
)
def test_input_that_does_not_fit_is_refused(trained, latents, spoil, message):
    x = spoil(latents(trained, 7))
    for call in (trained, trained.encode):
        with pytest.raises(ValueError, match=message):
            call(x)


@pytest.mark.parametrize(
    ("axis", "message"),
    [(0, r"axis must not be 0, which is the batch's; got 0"), (1.0, r"axis must be an integer; got 1.0")],
)
def test_axis_that_cannot_be_is_refused(make, axis, message):
    with pytest.raises(ValueError, match=message):
        make(axis=axis)


def test_unknown_options_are_named(make):
    with pytest.raises(TypeError, match="unexpected keyword argument 'decaay'"):
        make(decaay=0.9)


def test_state_dict_round_trip_continues_bit_for_bit(make, latents, snapshot, same):
    first, second = make(), make()
    for seed in range(2):
        first(latents(first, 6, 5, seed=seed))
    second.load_state_dict(first.state_dict())
    for seed in range(2, 5):
        x = latents(first, 6, 5, seed=seed)
        assert torch.equal(first(x).quantized, second(x).quantized)
    assert same(second, snapshot(first))


def test_state_dict_passes_through_safetensors(trained, make, tmp_path, snapshot, same):
    save_model(torch.nn.Sequential(trained), tmp_path / "q.safetensors")
    other = make()
    load_model(torch.nn.Sequential(other), tmp_path / "q.safetensors")
    assert same(other, snapshot(trained))


@pytest.mark.parametrize("assign", [True, False])
def test_a_quantizer_made_without_memory_works_once_its_state_is_loaded(trained, make, latents, assign):
    with torch.device("meta"):
        empty = make()
    if not assign:
        empty.to_empty(device="cpu")
    empty.load_state_dict(copy.deepcopy(trained.state_dict()), assign=assign)
    for seed in (8, 9):
        x = latents(trained, 6, 5, seed=seed)
        assert torch.equal(empty(x).quantized, trained(x).quantized)


def test_repr_names_the_sizes(quantizer):
    sizes = f"dim={quantizer.dim}, num_codebooks={quantizer.num_codebooks}, codebook_size="
    assert sizes in repr(quantizer)


def test_usage_and_perplexity_have_one_entry_per_codebook(trained, latents):
    out = trained.eval()(latents(trained, 6, 5))
    assert out.perplexity.shape == out.usage.shape == (trained.num_codebooks,)
    for m in range(trained.num_codebooks):
        codes = out.codes[:, m].flatten()
        shares = codes.bincount().double() / len(codes)
        assert out.perplexity[m].item() == pytest.approx(torch.special.entr(shares).sum().exp().item())
        assert out.usage[m].item() == pytest.approx(len(codes.unique()) / trained.codebook_sizes[m])


def rows_of(x):
    """(B, C, *positions) as (N, C)."""
    return x.movedim(1, -1).flatten(0, -2)
