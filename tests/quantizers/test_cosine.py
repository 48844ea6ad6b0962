"""distance="cosine": latents and codewords on the unit sphere."""

import pytest
import torch
import vector_quantize_pytorch

import depthq

KINDS = ("DepthwiseQuantizer", "SharedQuantizer", "ResidualQuantizer")


@pytest.fixture(params=[(kind, update) for kind in KINDS for update in ("ema", "gradient")], ids="-".join)
def trained(request):
    kind, update = request.param
    torch.manual_seed(0)
    quantizer = getattr(depthq, kind)(8, 2, 16, codebook_update=update, distance="cosine")
    for _ in range(3):
        quantizer(3 * torch.randn(2, 8, 400))
    return quantizer


def test_codewords_have_length_1(trained):
    assert torch.allclose(trained.codebooks.norm(dim=-1), torch.ones(2, 16), atol=1e-6)


def test_decode_is_what_quantized_was(trained):
    x = torch.randn(2, 8, 50)
    for _ in range(2):
        out = trained(x)
        assert torch.equal(trained.decode(out.codes), out.quantized)
        trained.eval()
        assert torch.equal(trained.encode(x), trained(x).codes)


def test_code_is_the_one_at_the_smallest_angle():
    torch.manual_seed(0)
    quantizer = depthq.DepthwiseQuantizer(8, 2, 16, distance="cosine").eval()
    x = torch.randn(5, 8, 7)
    slots = x.movedim(1, -1).unflatten(-1, (2, 4))  # (B, T, M, D)
    cosines = torch.nn.functional.cosine_similarity(slots.double()[..., None, :], quantizer.codebooks.double(), dim=-1)
    assert torch.equal(quantizer.encode(x).movedim(1, -1), cosines.argmax(-1))


def test_length_of_latents_does_not_matter(trained):
    """Of a residual quantizer to the first stage alone: what it leaves depends on the length."""
    trained.eval()
    x = torch.randn(2, 8, 50)
    stages = 1 if isinstance(trained, depthq.ResidualQuantizer) else 2
    assert torch.equal(trained.encode(4 * x)[:, :stages], trained.encode(x)[:, :stages])


def test_a_latent_of_length_zero_gets_the_lowest_code_and_no_nan(trained):
    x = torch.randn(2, 8, 50)
    x[0, :, 3] = 0
    x.requires_grad_()
    out = trained.train()(x)
    assert out.codes[0, 0, 3] == 0
    (out.quantized.square().sum() + out.loss).backward()
    assert out.loss.isfinite()
    assert x.grad.isfinite().all()
    assert all(tensor.isfinite().all() for tensor in trained.state_dict().values())


def test_averages_are_directions():
    """Two latents at right angles to one code: it points between them."""
    quantizer = depthq.DepthwiseQuantizer.from_codebooks(torch.tensor([[[1.0, 0.1]]]), distance="cosine", decay=0.0)
    x = torch.tensor([[[5.0, 0.0], [0.0, 2.0]]])  # (B, D, N): (5, 0) and (0, 2)
    quantizer(x)
    quantizer(x)
    assert torch.allclose(quantizer.codebooks, torch.full((1, 1, 2), 0.5**0.5), atol=1e-5)


def test_given_codebooks_are_brought_to_the_sphere(tmp_path):
    quantizer = depthq.SharedQuantizer.from_codebooks(3 * torch.randn(2, 16, 4), distance="cosine")
    assert torch.allclose(quantizer.codebooks.norm(dim=-1), torch.ones(2, 16))
    quantizer.save_pretrained(tmp_path)
    assert depthq.SharedQuantizer.from_pretrained(tmp_path).distance == "cosine"


def test_states_of_another_distance_are_refused():
    euclidean, cosine = (depthq.DepthwiseQuantizer(8, 2, 16, distance=name) for name in ("euclidean", "cosine"))
    with pytest.raises(ValueError, match='whether distance is "cosine" must be that of the state to load, False'):
        cosine.load_state_dict(euclidean.state_dict())
    with pytest.raises(ValueError, match="must be that of the state to load, True; got False"):
        euclidean.load_state_dict(cosine.state_dict())


def test_slices_of_one_number_are_refused():
    with pytest.raises(ValueError, match=r"got 1; take distance='euclidean', or wider codewords"):
        depthq.DepthwiseQuantizer(4, 4, 8, distance="cosine")
    with pytest.raises(ValueError, match=r"got slices of \(2, 2, 1\); take distance='euclidean', or another"):
        depthq.DepthwiseQuantizer(5, 3, 8, distance="cosine")


def test_unknown_distances_are_refused():
    with pytest.raises(ValueError, match="distance must be 'euclidean' or 'cosine'; got 'manhattan'"):
        depthq.DepthwiseQuantizer(8, 2, 16, distance="manhattan")


def test_a_peer_with_the_same_codebook_gives_the_same_codes():
    torch.manual_seed(0)
    peer = vector_quantize_pytorch.VectorQuantize(
        dim=8, codebook_size=32, use_cosine_sim=True, channel_last=False
    ).eval()
    ours = depthq.DepthwiseQuantizer.from_codebooks(peer.codebook[None], distance="cosine").eval()
    x = torch.randn(3, 8, 40)
    quantized, codes, _ = peer(x)
    out = ours(x)
    assert torch.equal(out.codes[:, 0], codes)
    assert torch.allclose(out.quantized, quantized, atol=1e-5)
