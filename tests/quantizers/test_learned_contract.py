"""What every quantizer promises that learns its codebooks."""

import copy
import re

import numpy as np
import pytest
import torch

from depthq import DepthwiseQuantizer


def APPLIES_TO(row):
    return row.is_learned


def test_beta_weighs_the_pull_on_the_encoder_alone(make, latents):
    quantizer = make(commitment_weight=0.5)
    out = quantizer(latents(quantizer, 6, 5))
    torch.testing.assert_close(out.loss - out.entropy_loss, out.codebook_loss + 0.5 * out.commitment_loss)
    if quantizer.state.update == "ema":
        assert out.codebook_loss == 0
    else:  # the codewords' own pull is the same whatever beta
        other = make(commitment_weight=5.0)
        other(latents(other, 6, 5)).loss.backward()
        out.loss.backward()
        assert torch.equal(quantizer.state.weight.grad, other.state.weight.grad)


def test_state_moves_in_training(trained, latents, snapshot):
    before = snapshot(trained)
    trained(latents(trained, 6, 5, seed=9))
    trained(latents(trained, 6, 5, seed=10))
    after = trained.state_dict()
    moving = {"state.ema_count", "state.num_updates", "state.recent_count"}
    if trained.state.update == "ema":
        moving |= {"state.weight", "state.ema_sum"}
    assert moving <= {name for name in after if not torch.equal(after[name], before[name])}


def test_health_counts_what_training_saw(make, latents):
    quantizer = make()
    assert quantizer.health().perplexity.tolist() == [1, 1, 1]  # before training nothing is used
    out = quantizer(latents(quantizer, 6, 5))
    quantizer.eval()(latents(quantizer, 6, 5, seed=2))
    kept = len(out.codebook_sizes)
    torch.testing.assert_close(quantizer.health().perplexity[:kept], out.perplexity)
    assert quantizer.health().mean_norm.shape == (3,)


def test_first_batch_initialises_from_data(make, latents):
    quantizer = make()
    x = 100 + latents(quantizer, 6, 5)
    out = quantizer(x)
    first = quantizer.codebooks[0].detach()
    seen = quantizer.project_in or torch.nn.Identity()
    columns = seen(x.movedim(1, -1).flatten(0, -2))[:, : first.shape[1]]
    if quantizer.distance == "cosine":
        columns = columns / columns.norm(dim=1, keepdim=True)
    assert torch.isclose(first[:, None], columns, rtol=1e-6).all(2).any(1).all()  # each codeword is one of the vectors
    assert out.commitment_loss < 10 * quantizer.num_codebooks  # with random codewords it would be near 10,000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, r"decay must lie in \[0, 1\); got 1.0"),
        ({"epsilon": 0.0}, r"epsilon must be positive; got 0.0"),
        ({"rare_code_threshold": 1.0}, r"rare_code_threshold must lie in \[0, 1\); got 1.0"),
        ({"commitment_weight": -0.1}, r"commitment_weight must be finite and at least 0; got -0.1"),
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
    assert quantizer.eval()(x).commitment_loss < 0.95 * before
