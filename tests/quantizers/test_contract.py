"""What every quantizer promises: one table, all quantizers."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_model, save_model

from depthq import DepthwiseQuantizer
from depthq.quantizers import NonFiniteLatentsError

LAYOUTS = {"NC": ((), 1), "BTC": ((7,), -1), "BCT": ((7,), 1), "BCHW": ((6, 5), 1), "BCTHW": ((3, 4, 5), 1)}


@pytest.fixture(params=["train", "eval"])
def mode(request):
    return request.param == "train"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_rank_and_axis_keeps_its_shape(make, latents, layout):
    positions, axis = LAYOUTS[layout]
    quantizer = make(axis=axis)
    x = latents(quantizer, *positions, batch=9)
    out = quantizer(x)
    assert out.quantized.movedim(axis, -1).shape == (9, *positions, quantizer.out_dim)
    assert out.codes.shape == (9, len(out.codebook_sizes), *positions)
    assert out.codes.dtype == torch.int64
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


def test_encode_does_not_learn_in_training(trained, latents, snapshot, same):
    before = snapshot(trained)
    trained.train().encode(latents(trained, 6, 5))
    assert same(trained, before)


def test_gradient_passes_straight_through(trained, latents):
    x = latents(trained, 6, 5).requires_grad_()
    out = trained.eval()(x)
    upstream = torch.randn_like(out.quantized)
    out.quantized.backward(upstream)
    copies = trained.out_dim // trained.dim  # every copy of a shared vector passes its gradient to it
    expected = upstream.unflatten(1, (copies, -1)).sum(1)
    if getattr(trained, "combine", None) == "sum":
        expected = trained.num_codebooks * expected
    torch.testing.assert_close(x.grad, expected)


def test_beta_weighs_the_pull_on_the_encoder_alone(make, latents):
    quantizer = make(commitment_weight=0.5)
    out = quantizer(latents(quantizer, 6, 5))
    torch.testing.assert_close(out.loss, out.codebook_loss + 0.5 * out.commitment_loss)
    if quantizer.state.update == "ema":
        assert out.codebook_loss == 0
    else:  # the codewords' own pull is the same whatever beta
        other = make(commitment_weight=5.0)
        other(latents(other, 6, 5)).loss.backward()
        out.loss.backward()
        assert torch.equal(quantizer.state.weight.grad, other.state.weight.grad)


def test_commitment_gradient_is_that_of_autograd(trained, latents):
    """Written out in plain operations: each codebook's mean squared distance, codewords held constant."""
    x = latents(trained, 6, 5).requires_grad_()
    out = trained.eval()(x)
    (grad,) = torch.autograd.grad(out.commitment_loss, x)
    rows = x.movedim(1, -1).flatten(0, -2)
    codewords = trained.state.lookup(out.codes.movedim(1, -1).flatten(0, -2)).detach()
    loss = sum(
        (seen - codewords[:, m, : seen.shape[1]]).square().sum() / (len(rows) * trained.state.codebook_dims[m])
        for m, seen in enumerate(seen_by_each_codebook(trained, rows, codewords))
    )
    torch.testing.assert_close(out.commitment_loss, loss)
    torch.testing.assert_close(grad, torch.autograd.grad(loss, x)[0])


def seen_by_each_codebook(quantizer, rows, codewords):
    kind = type(quantizer).__name__
    if kind == "DepthwiseQuantizer":
        dims = quantizer.state.codebook_dims
        starts = [sum(dims[:m]) for m in range(len(dims))]
        return [rows[:, start : start + dim] for start, dim in zip(starts, dims, strict=True)]
    if kind == "SharedQuantizer":
        return [rows] * quantizer.num_codebooks
    return [rows - codewords[:, :m].sum(1) for m in range(quantizer.num_codebooks)]


def test_codes_are_those_of_the_nearest_codewords(trained, latents):
    x = latents(trained, 6, 5)
    rows = x.movedim(1, -1).flatten(0, -2)
    codes = trained.eval().encode(x).movedim(1, -1).flatten(0, -2)
    codewords = trained.state.lookup(codes).detach()
    for m, seen in enumerate(seen_by_each_codebook(trained, rows, codewords)):
        codebook = trained.codebooks[m].detach()[:, : seen.shape[1]]
        assert torch.equal(codes[:, m], torch.cdist(seen.double(), codebook.double()).argmin(1))


def test_state_is_frozen_in_eval(trained, latents, snapshot, same):
    before = snapshot(trained)
    trained.eval()(latents(trained, 6, 5, seed=9))
    assert same(trained, before)


def test_state_moves_in_training(trained, latents, snapshot):
    before = snapshot(trained)
    trained(latents(trained, 6, 5, seed=9))
    trained(latents(trained, 6, 5, seed=10))
    after = trained.state_dict()
    moving = {"state.ema_count", "state.num_updates", "state.recent_count"}
    if trained.state.update == "ema":
        moving |= {"state.weight", "state.ema_sum"}
    assert moving <= {name for name in after if not torch.equal(after[name], before[name])}


def test_first_batch_initialises_from_data(make, latents):
    quantizer = make()
    x = 100 + latents(quantizer, 6, 5)
    out = quantizer(x)
    first = quantizer.codebooks[0].detach()
    columns = x.movedim(1, -1).flatten(0, -2)[:, : first.shape[1]]
    assert (first[:, None] == columns).all(2).any(1).all()  # each codeword is one of the vectors
    assert out.commitment_loss < 10 * quantizer.num_codebooks  # with random codewords it would be near 10,000


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
        decoded, codes = trained.decode(out.codes), trained.encode(x)
    assert torch.equal(out.quantized, expected.quantized)
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(decoded, expected_module.decode(out.codes))
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


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_latents_raise_before_any_state_changes(trained, latents, snapshot, same, value):
    before = snapshot(trained)
    x = latents(trained, 6, 5)
    x[2, 1, 3, 4] = value
    with pytest.raises(NonFiniteLatentsError, match="x must be finite in training; got NaN or infinity"):
        trained.train()(x)
    assert same(trained, before)
    trained.eval()(x)  # nothing can be spoiled here


def test_finite_latents_whose_sum_overflows_are_accepted(quantizer, latents):
    quantizer(torch.full_like(latents(quantizer, 6, 5), 3e38))


def test_check_of_finiteness_can_be_turned_off(make, latents):
    quantizer = make(check_finite=False)
    x = latents(quantizer, 6, 5)
    x[0, 0, 0, 0] = math.nan
    quantizer(x)


@pytest.mark.parametrize("positions", [(0, 5), (6, 5)])
def test_empty_batch_changes_nothing(trained, latents, snapshot, same, positions):
    before = snapshot(trained)
    x = latents(trained, *positions, batch=0 if all(positions) else 4).requires_grad_()
    out = trained.train()(x)
    (out.loss + out.quantized.sum()).backward()
    assert out.loss == 0
    assert out.quantized.shape[0] == x.shape[0]
    assert same(trained, before)
    assert trained.decode(trained.encode(x)).shape == out.quantized.shape


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
        assert torch.equal(masked.decode(out.codes, mask=mask), out.quantized)
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


def test_masked_codes_need_the_mask_to_decode(trained, latents):
    out = trained.eval()(latents(trained, 7), mask=torch.zeros(4, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="got -1; -1 marks a masked position: pass the mask"):
        trained.decode(out.codes)


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
    codes = trained.encode(x)
    for call in (trained, trained.encode):
        with pytest.raises(ValueError, match=message):
            call(x, mask=mask)
    with pytest.raises(ValueError, match=message):
        trained.decode(codes, mask=mask)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.long(), r"x must be floating point; got torch.int64; convert with .float\(\)"),
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
    ("spoil", "message"),
    [
        (lambda c: c.float(), r"codes must be int64; got torch.float32; convert with .long\(\)"),
        (lambda c: torch.cat([c, c], 1), r"codes must be \(B, M, \.\.\.\) with M .* got shape \(4, 6, 7\)"),
        (lambda c: c[0, :, 0][0], r"codes must be \(B, M, \.\.\.\) with M .* got shape \(\)"),
        (lambda c: c + 8, r"codes of codebook 0 must lie in \[0, \d\); got \d+; were they made by another model\?"),
        (lambda c: c - 9, r"codes of codebook 0 must lie in \[0, \d\); got -\d"),
    ],
)
def test_codes_that_do_not_fit_are_refused(trained, latents, spoil, message):
    with pytest.raises(ValueError, match=message):
        trained.decode(spoil(trained.encode(latents(trained, 7))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, r"decay must lie in \[0, 1\); got 1.0"),
        ({"epsilon": 0.0}, r"epsilon must be positive; got 0.0"),
        ({"rare_code_threshold": 1.0}, r"rare_code_threshold must lie in \[0, 1\); got 1.0"),
        ({"commitment_weight": -0.1}, r"commitment_weight must be finite and at least 0; got -0.1"),
        ({"axis": 0}, r"axis must not be 0, which is the batch's; got 0"),
        ({"axis": 1.0}, r"axis must be an integer; got 1.0"),
        ({"codebook_update": "adam"}, r"codebook_update must be 'ema' or 'gradient'; got 'adam'"),
    ],
)
def test_settings_out_of_range_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 8), r"num_codebooks must be at least 1; got 0"),
        ((3.0, 8), r"num_codebooks must be an integer; got 3.0"),
        ((3, 8.0), r"codebook_size must be an integer; got 8.0"),
        ((3, [8, True, 8]), r"codebook_size must be an integer; got True"),
        ((3, 0), r"codebook_size must be at least 1; got 0"),
        ((3, [8, 8]), r"codebook_size must be an int or have one entry for each of 3 codebooks; got \[8, 8\]"),
    ],
)
def test_sizes_out_of_range_are_refused(quantizer, sizes, message):
    with pytest.raises(ValueError, match=message):
        type(quantizer)(12, *sizes)


def test_state_dict_round_trip_continues_bit_for_bit(make, latents, snapshot, same):
    first, second = make(), make()
    for seed in range(2):
        first(latents(first, 6, 5, seed=seed))
    second.load_state_dict(first.state_dict())
    for seed in range(2, 5):
        x = latents(first, 6, 5, seed=seed)
        assert torch.equal(first(x).quantized, second(x).quantized)
    assert same(second, snapshot(first))


def test_deepcopy_shares_nothing(trained, latents, snapshot, same):
    before, twin = snapshot(trained), copy.deepcopy(trained)
    twin(latents(trained, 6, 5, seed=9))
    twin(latents(trained, 6, 5, seed=10))
    assert same(trained, before)
    assert not same(twin, before)


def test_state_dict_of_another_shape_names_both_shapes(quantizer):
    other = type(quantizer)(12, 2, 16)
    ours = re.escape(str(list(quantizer.codebook_sizes)))
    message = rf"codebook_size must be that of the state to load, \[16, 16\]; got {ours}; construct the quantizer as"
    with pytest.raises(ValueError, match=message):
        quantizer.load_state_dict(other.state_dict())


def test_state_dict_of_other_sizes_is_refused_where_padding_makes_the_shapes_equal(snapshot, same):
    quantizer = DepthwiseQuantizer(12, 3, [8, 4, 6])
    before = snapshot(quantizer)
    message = r"codebook_size must be that of the state to load, \[4, 8, 6\]; got \[8, 4, 6\]"
    with pytest.raises(ValueError, match=message):
        quantizer.load_state_dict(DepthwiseQuantizer(12, 3, [4, 8, 6]).state_dict())
    uneven = DepthwiseQuantizer(12, 3, 8, codebook_dim=[3, 4, 5])
    message = r"codebook_dim must be that of the state to load, \[5, 4, 3\]; got \[3, 4, 5\]"
    with pytest.raises(ValueError, match=message):
        uneven.load_state_dict(DepthwiseQuantizer(12, 3, 8, codebook_dim=[5, 4, 3]).state_dict())
    assert same(quantizer, before)


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


@pytest.mark.parametrize("size", [np.int64(8), [np.int64(8)] * 3])
def test_sizes_may_be_whole_numbers_of_numpy(quantizer, size):
    other = type(quantizer)(np.int64(12), np.int64(3), size)
    assert other.codebook_sizes == (8, 8, 8)
    assert all(type(entry) is int for entry in (other.dim, other.num_codebooks, *other.codebook_sizes))


def test_backend_can_be_forced(make, latents, monkeypatch):
    quantizer = make(backend="triton")
    assert quantizer.state.backend == "triton"
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="backend 'triton' must get tensors on a CUDA device"):
        quantizer.encode(latents(quantizer, 6, 5))
    reference, default = make(backend="reference"), make()
    x = latents(quantizer, 6, 5)
    assert torch.equal(reference(x).codes, default(x).codes)


def test_rare_codes_are_redrawn_until_all_are_used(make):
    """Eight far clusters per codebook; the first batch shows one alone. No code may stay dead."""
    quantizer = make(axis=-1, decay=0.8)
    centres = 20 * torch.randn(8, quantizer.dim, generator=torch.Generator().manual_seed(0))
    quantizer(centres[:1].repeat(64, 1))
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(64, quantizer.dim, generator=generator)
        quantizer(centres.repeat(8, 1) + noise)
    out = quantizer.eval()(centres.repeat(50, 1) + torch.randn(400, quantizer.dim))
    assert out.usage[0] == 1


def test_training_lowers_the_distance_to_data(make, latents):
    quantizer = make(decay=0.5)
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.05) if list(quantizer.parameters()) else None
    x = latents(quantizer, 16, 16)
    quantizer(x)
    before = quantizer.eval()(x).commitment_loss
    quantizer.train()
    for _ in range(30):
        loss = quantizer(x).loss
        if optimizer:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert quantizer.eval()(x).commitment_loss < 0.9 * before


def test_repr_names_the_sizes(quantizer):
    assert f"dim={quantizer.dim}, num_codebooks=3, codebook_size=" in repr(quantizer)


def test_usage_and_perplexity_have_one_entry_per_codebook(trained, latents):
    out = trained.eval()(latents(trained, 6, 5))
    for m in range(3):
        codes = out.codes[:, m].flatten()
        shares = codes.bincount().double() / len(codes)
        assert out.perplexity[m].item() == pytest.approx(torch.special.entr(shares).sum().exp().item())
        assert out.usage[m].item() == pytest.approx(len(codes.unique()) / trained.codebook_sizes[m])
