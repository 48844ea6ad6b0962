"""Beside the real vector-quantize-pytorch, on one state: same codes, same quantized, same loss."""

import pytest
import torch
import vector_quantize_pytorch as peer

from depthq.compat import vector_quantize as ours

HEADS = {"heads": 4, "separate_codebook_per_head": True, "codebook_dim": 4}


def state_of(module):
    """A state as after some training: counts above 0, averages that fit the codebooks."""
    torch.manual_seed(1)
    for codebook in (child for child in module.modules() if hasattr(child, "cluster_size")):
        codebook.cluster_size.uniform_(5, 20)
        codebook.embed_avg.copy_(codebook.embed * codebook.cluster_size[..., None])
    return module.state_dict()


@pytest.fixture(params=["euclidean", "cosine"])
def options(request):
    return {"codebook_size": 32, "use_cosine_sim": request.param == "cosine"}


@pytest.mark.parametrize("heads", [{}, HEADS, {"codebook_dim": 3}], ids=["one", "heads", "projected"])
@pytest.mark.parametrize("training", [True, False])
def test_vector_quantize(options, heads, training):
    torch.manual_seed(0)
    theirs = peer.VectorQuantize(dim=16, rotation_trick=False, **options, **heads)
    mine = ours.VectorQuantize(dim=16, **options, **heads)
    mine.load_peer_state_dict(state_of(theirs))
    x = torch.randn(2, 50, 16)
    expected, found = (module.train(training)(x) for module in (theirs, mine))
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2], expected[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(mine.get_output_from_indices(found[1]), expected[0], atol=1e-5, rtol=0)
    if not training:
        codes = theirs.get_codes_from_indices(expected[1])
        torch.testing.assert_close(mine.get_codes_from_indices(found[1]), codes, atol=1e-5, rtol=0)


def test_gradients_are_theirs(options):
    torch.manual_seed(0)
    theirs = peer.VectorQuantize(dim=16, rotation_trick=False, **options, **HEADS)
    mine = ours.VectorQuantize(dim=16, **options, **HEADS)
    mine.load_peer_state_dict(state_of(theirs))
    grads = []
    for module in (theirs, mine):
        x = torch.linspace(-1, 1, 2 * 50 * 16).sin().view(2, 50, 16).requires_grad_()
        quantized, _, loss = module(x)
        (quantized.pow(3).sum() + 100 * loss).backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [({"channel_last": False}, (2, 16, 50)), ({"accept_image_fmap": True}, (2, 16, 5, 7)), ({}, (9, 16))],
    ids=["channel-first", "image", "vectors"],
)
@pytest.mark.parametrize("heads", [{}, HEADS], ids=["one", "heads"])
def test_layouts(layout, shape, heads):
    torch.manual_seed(0)
    theirs = peer.VectorQuantize(dim=16, codebook_size=32, **layout, **heads).eval()
    mine = ours.VectorQuantize(dim=16, codebook_size=32, **layout, **heads).eval()
    mine.load_peer_state_dict(state_of(theirs))
    x = torch.randn(shape)
    expected, found = theirs(x), mine(x)
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("heads", [{}, HEADS], ids=["one", "heads"])
def test_masked_positions(heads):
    torch.manual_seed(0)
    theirs = peer.VectorQuantize(dim=16, codebook_size=32, **heads).eval()
    mine = ours.VectorQuantize(dim=16, codebook_size=32, **heads).eval()
    mine.load_peer_state_dict(state_of(theirs))
    x, lens = torch.randn(2, 50, 16), torch.tensor([20, 50])
    mask = torch.arange(50) < lens[:, None]
    expected = theirs(x, mask=mask)
    for found in (mine(x, mask=mask), mine(x, lens=lens)):
        assert torch.equal(found[1], expected[1])
        torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    quantized, indices, loss = mine.train()(x, mask=mask)
    assert (indices[~mask] == -1).all()
    assert (quantized[~mask] == 0).all()
    assert loss.isfinite()
    torch.testing.assert_close(mine.get_output_from_indices(indices), quantized)
    assert (mine.get_codes_from_indices(indices)[~mask] == 0).all()
    with pytest.raises(ValueError, match="mask must not be given beside lens"):
        mine(x, mask=mask, lens=lens)


def test_lens_count_positions_wherever_channels_are():
    torch.manual_seed(0)
    mine = ours.VectorQuantize(dim=16, codebook_size=32, channel_last=False).eval()
    x, lens = torch.randn(2, 16, 50), torch.tensor([20, 50])
    mask = torch.arange(50) < lens[:, None]
    assert torch.equal(mine(x, lens=lens)[1], mine(x, mask=mask)[1])
    images = ours.VectorQuantize(dim=16, codebook_size=32, accept_image_fmap=True)
    with pytest.raises(ValueError, match=r"x must be a sequence for lens; got shape \(2, 16, 5, 7\); pass a mask"):
        images(torch.randn(2, 16, 5, 7), lens=lens)


@pytest.mark.parametrize("sizes", [{}, {"codebook_dim": 3}], ids=["whole", "projected"])
def test_masked_positions_of_residual_vq_lead_back_to_zero(sizes):
    torch.manual_seed(0)
    mine = ours.ResidualVQ(dim=16, num_quantizers=3, codebook_size=32, **sizes).eval()
    x, mask = torch.randn(2, 50, 16), torch.arange(50) < torch.tensor([[20], [50]])
    quantized, indices, _ = mine(x, mask=mask)
    torch.testing.assert_close(mine.get_output_from_indices(indices), quantized)
    nowhere = torch.full_like(indices, -1)
    assert torch.equal(mine.get_output_from_indices(nowhere), torch.zeros_like(x))


def test_each_position_has_as_many_quantizers_as_its_indices():
    torch.manual_seed(0)
    theirs = peer.ResidualVQ(dim=16, num_quantizers=3, codebook_size=32, quantize_dropout=True).eval()
    mine = ours.ResidualVQ(dim=16, num_quantizers=3, codebook_size=32).eval()
    mine.load_peer_state_dict(state_of(theirs))
    indices = torch.randint(32, (2, 50, 3)).where(torch.arange(3) < torch.randint(4, (2, 50, 1)), -1)
    expected = theirs.get_output_from_indices(indices)
    torch.testing.assert_close(mine.get_output_from_indices(indices), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", [{}, {"codebook_dim": 3}], ids=["whole", "projected"])
@pytest.mark.parametrize("training", [True, False])
def test_residual_vq(options, sizes, training):
    torch.manual_seed(0)
    theirs = peer.ResidualVQ(dim=16, num_quantizers=3, rotation_trick=False, **options, **sizes)
    mine = ours.ResidualVQ(dim=16, num_quantizers=3, **options, **sizes)
    mine.load_peer_state_dict(state_of(theirs))
    x = torch.randn(2, 50, 16)
    # In training their codewords have moved on when they are looked up: not those that were returned.
    expected, found = (module.train(training)(x, return_all_codes=not training) for module in (theirs, mine))
    assert torch.equal(found[1], expected[1])
    for mine_part, their_part in zip((found[0], *found[2:]), (expected[0], *expected[2:]), strict=True):
        torch.testing.assert_close(mine_part, their_part, atol=1e-5, rtol=0)
    torch.testing.assert_close(mine.get_output_from_indices(found[1]), found[0], atol=1e-5, rtol=0)


def test_grouped_residual_vq(options):
    torch.manual_seed(0)
    theirs = peer.GroupedResidualVQ(dim=16, groups=2, num_quantizers=3, rotation_trick=False, **options)
    mine = ours.GroupedResidualVQ(dim=16, groups=2, num_quantizers=3, **options)
    mine.load_peer_state_dict(state_of(theirs))
    x = torch.randn(2, 50, 16)
    expected, found = theirs(x), mine(x)
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2], expected[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(mine.get_output_from_indices(found[1]), found[0], atol=1e-5, rtol=0)
    assert mine.get_codes_from_indices(found[1]).shape == theirs.get_codes_from_indices(expected[1]).shape
    assert mine.codebooks.shape == theirs.codebooks.shape


KINDS = {
    "VectorQuantize": {"dim": 16, "codebook_size": 32, **HEADS},
    "ResidualVQ": {"dim": 16, "codebook_size": 32, "num_quantizers": 3, "codebook_dim": 4},
    "GroupedResidualVQ": {"dim": 16, "codebook_size": 32, "num_quantizers": 3, "groups": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_trained_goes_back(kind):
    torch.manual_seed(0)
    mine = getattr(ours, kind)(**KINDS[kind])
    for _ in range(4):
        mine(torch.randn(8, 50, 16))
    theirs = getattr(peer, kind)(**KINDS[kind])
    theirs.load_state_dict(mine.peer_state_dict())
    x = torch.randn(2, 50, 16)
    assert torch.equal(theirs.eval()(x)[1], mine.eval()(x)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_imported_codebooks_are_trained_on_not_redrawn(kind):
    torch.manual_seed(0)
    theirs, mine = getattr(peer, kind)(**KINDS[kind]), getattr(ours, kind)(**KINDS[kind])
    mine.load_peer_state_dict(theirs.state_dict())  # fresh: all counts are 0
    before = mine.peer_state_dict()
    mine(torch.randn(8, 200, 16))
    for name, tensor in mine.peer_state_dict().items():
        if name.endswith("embed"):
            assert torch.equal(tensor, before[name]), name  # codebooks move in the next step


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_passes_learn_nothing(kind):
    torch.manual_seed(0)
    mine = getattr(ours, kind)(**KINDS[kind])
    mine(torch.randn(8, 50, 16))
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    mine(torch.randn(8, 50, 16), freeze_codebook=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())
    mine(torch.randn(8, 50, 16))
    assert not all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())


def test_a_pass_may_learn_though_the_module_says_otherwise():
    torch.manual_seed(0)
    mine = ours.VectorQuantize(dim=16, codebook_size=32, freeze_codebook=True)
    before, x = mine.codebook.clone(), torch.randn(8, 50, 16)
    mine(x)
    assert torch.equal(mine.codebook, before)
    mine(x, freeze_codebook=False)
    assert not torch.equal(mine.codebook, before)
    learned = mine.codebook.clone()
    mine(x)
    assert torch.equal(mine.codebook, learned)


def test_dropped_quantizers_have_index_minus_one():
    torch.manual_seed(0)
    mine = ours.ResidualVQ(dim=16, num_quantizers=4, codebook_size=32, quantize_dropout=True)
    x, seen = torch.randn(2, 50, 16), set()
    for _ in range(12):
        quantized, indices, losses = mine(x)
        kept = int((indices >= 0).all(1)[0].sum())
        seen.add(kept)
        assert (indices[..., kept:] == -1).all()
        assert (losses[kept:] == 0).all()
        torch.testing.assert_close(mine.get_output_from_indices(indices), quantized)
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"dim": 16, "codebook_size": 16, **HEADS}, r"codebooks of shape \(4, 32, 4\).* got \(4, 16, 4\)"),
        ({"dim": 16, "codebook_size": 32}, r"codebooks of shape \(4, 32, 4\).* got \(1, 32, 16\)"),
        ({"dim": 12, "codebook_size": 32, **HEADS}, r"state must hold no projection, .* got .*project_in.weight"),
    ],
)
def test_states_of_other_sizes_are_refused(theirs, message):
    mine = ours.VectorQuantize(dim=16, codebook_size=32, **HEADS)
    with pytest.raises(ValueError, match=message):
        mine.load_peer_state_dict(peer.VectorQuantize(**theirs).state_dict())


def test_states_without_codebooks_or_with_more_are_refused():
    with pytest.raises(ValueError, match="got no codebooks"):
        ours.VectorQuantize(dim=16, codebook_size=32).load_peer_state_dict({})
    theirs = peer.ResidualVQ(dim=16, num_quantizers=4, codebook_size=32)
    with pytest.raises(ValueError, match=r"num_quantizers must be that of the state to load.* got 3"):
        ours.ResidualVQ(dim=16, num_quantizers=3, codebook_size=32).load_peer_state_dict(theirs.state_dict())
    with pytest.raises(ValueError, match=r"state must hold codebooks of shape \(5, 32, 16\)"):
        ours.ResidualVQ(dim=16, num_quantizers=5, codebook_size=32).load_peer_state_dict(theirs.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 4}, "separate_codebook_per_head must be True for 4 heads; got False"),
        ({"codebook_dim": 17}, "codebook_dim must be at most dim / heads = 16"),
    ],
)
def test_what_ours_does_not_do_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ours.VectorQuantize(dim=16, codebook_size=32, **options)
    with pytest.raises(TypeError, match="stochastic_sample_codes"):
        ours.VectorQuantize(dim=16, codebook_size=32, stochastic_sample_codes=True)


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="groups must divide dim=16; got 3"):
        ours.GroupedResidualVQ(dim=16, groups=3, num_quantizers=2, codebook_size=8)
