"""Codebooks that stay as they are: frozen ones, and those that were learned elsewhere."""

import copy

import pytest
import torch

import depthq

KINDS = {
    "depthwise": lambda **options: depthq.DepthwiseQuantizer(8, 2, 16, **options),
    "shared": lambda **options: depthq.SharedQuantizer(8, 2, 16, **options),
    "residual": lambda **options: depthq.ResidualQuantizer(8, 2, 16, **options),
}


@pytest.fixture(params=[(kind, update) for kind in KINDS for update in ("ema", "gradient")], ids="-".join)
def trained(request):
    kind, update = request.param
    torch.manual_seed(0)
    quantizer = KINDS[kind](codebook_update=update)
    for _ in range(3):
        quantizer(latents())
    return quantizer


def latents(count=400):
    return torch.randn(2, 8, count)


def weights(quantizer):
    return {name: tensor.clone() for name, tensor in quantizer.state_dict().items() if tensor.is_floating_point()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_frozen_quantizer_learns_nothing_and_passes_gradients(trained):
    before = weights(trained.freeze())
    assert trained.is_frozen
    trained.train()
    trained.requires_grad_(True)
    x = latents().requires_grad_()
    out = trained(x)
    (out.quantized.square().sum() + out.loss).backward()
    assert same(weights(trained), before)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in trained.parameters())
    assert x.grad.abs().sum() > 0
    assert torch.equal(trained.decode(out.codes).flatten(), out.quantized.flatten())


def test_freezing_outlasts_copies_and_states(trained):
    trained.freeze()
    assert copy.deepcopy(trained).train().is_frozen
    other = copy.deepcopy(trained).unfreeze()
    other.load_state_dict(trained.state_dict())
    assert other.is_frozen
    other.load_state_dict(copy.deepcopy(trained).unfreeze().state_dict())
    assert not other.is_frozen


def test_an_unfrozen_quantizer_learns_again(trained):
    before = weights(trained.freeze().unfreeze())
    trained.train()
    trained(latents())
    assert not trained.is_frozen
    assert not same(weights(trained), before)


def test_a_grid_stops_counting():
    quantizer = depthq.ScalarQuantizer(8, 2, 81).freeze()
    quantizer(latents())
    assert not quantizer.health().is_trained.any()


def test_what_has_no_state_cannot_be_frozen():
    with pytest.raises(ValueError, match="must have a state to be frozen; got NoQuantizer"):
        depthq.quantizers.NoQuantizer(8).freeze()


@pytest.mark.parametrize("update", ["ema", "gradient"])
@pytest.mark.parametrize("kind", ["DepthwiseQuantizer", "SharedQuantizer", "ResidualQuantizer"])
def test_given_codebooks_are_not_redrawn(kind, update):
    torch.manual_seed(0)
    codebooks = torch.randn(3, 16, 4)
    codebooks[:, 7] = 99.0  # far from all latents: never used
    quantizer = getattr(depthq, kind).from_codebooks(codebooks, codebook_update=update, decay=0.99)
    assert torch.equal(quantizer.codebooks, codebooks)
    quantizer(torch.randn(2, quantizer.dim, 500))
    assert quantizer.health().redrawn.tolist() == [0, 0, 0]
    assert torch.allclose(quantizer.codebooks[:, 7], codebooks[:, 7])


def test_averages_go_on_from_given_codewords():
    """One codeword, a batch of eights: it moves a hundredth of the way, as a codeword of its own would."""
    quantizer = depthq.DepthwiseQuantizer.from_codebooks(torch.zeros(1, 1, 2), decay=0.99)
    for _ in range(2):
        quantizer(torch.full((1, 2, 100), 8.0))
    assert torch.allclose(quantizer.codebooks, torch.full((1, 1, 2), 0.08), atol=1e-4)


def test_codebooks_of_different_sizes_are_slices_of_different_width():
    codebooks = [torch.randn(5, 2), torch.randn(3, 4)]
    quantizer = depthq.DepthwiseQuantizer.from_codebooks(codebooks, axis=-1)
    assert (quantizer.dim, quantizer.codebook_sizes) == (6, (5, 3))
    assert all(map(torch.equal, quantizer.codebooks, codebooks))
    codes = torch.tensor([[4, 2]])
    assert torch.equal(quantizer.decode(codes)[0], torch.cat([codebooks[0][4], codebooks[1][2]]))


@pytest.mark.parametrize(
    ("codebooks", "message"),
    [
        ([], "none of them 0; got \\[\\]"),
        (torch.randn(3, 4), "must be \\(M, K, D\\)"),
        ([torch.randn(2, 3), torch.full((2, 3), torch.nan)], "must be finite"),
    ],
)
def test_what_is_no_codebook_is_refused(codebooks, message):
    with pytest.raises(ValueError, match=message):
        depthq.DepthwiseQuantizer.from_codebooks(codebooks)


def test_a_shared_quantizer_wants_one_dimension():
    with pytest.raises(ValueError, match="must have one dimension for a SharedQuantizer; got \\[2, 3\\]"):
        depthq.SharedQuantizer.from_codebooks([torch.randn(4, 2), torch.randn(4, 3)])


def test_codebooks_without_gradient_are_not_redrawn():
    quantizer = depthq.DepthwiseQuantizer(8, 2, 16, codebook_update="gradient").requires_grad_(False)
    before = quantizer.codebooks.clone()
    quantizer(latents())
    assert torch.equal(quantizer.codebooks, before)
