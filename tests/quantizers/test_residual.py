import pytest
import torch
from vector_quantize_pytorch import ResidualVQ

from depthq import ResidualQuantizer


def test_stages_refine_by_hand():
    """Codewords 0, 10, then 0, 1, -1: 9.2 is 10 - 1 with 0.2 left."""
    quantizer = ResidualQuantizer(1, 2, [2, 3]).eval()
    quantizer.state.weight[0, :2] = torch.tensor([[0.0], [10.0]])
    quantizer.state.weight[1] = torch.tensor([[0.0], [1.0], [-1.0]])
    x = torch.tensor([[9.2], [0.4]], requires_grad=True)
    out = quantizer(x)
    assert out.codes.tolist() == [[1, 2], [0, 0]]
    assert out.quantized.tolist() == [[9], [0]]
    # Stage 1 leaves -0.8 and 0.4, stage 2 leaves 0.2 and 0.4: squares, mean over two vectors.
    assert out.commitment_loss.item() == pytest.approx((0.64 + 0.16) / 2 + (0.04 + 0.16) / 2)
    out.commitment_loss.backward()
    assert x.grad.flatten().tolist() == pytest.approx([-0.8 + 0.2, 0.4 + 0.4])


def test_agrees_with_vector_quantize_pytorch():
    torch.manual_seed(0)
    peer = ResidualVQ(dim=6, num_quantizers=3, codebook_size=16).eval()
    quantizer = ResidualQuantizer(6, 3, 16, axis=-1).eval()
    quantizer.state.weight.copy_(peer.codebooks)
    x = torch.randn(4, 9, 6)
    quantized, codes, _ = peer(x)
    out = quantizer(x)
    assert torch.equal(out.codes.movedim(1, -1), codes)
    torch.testing.assert_close(out.quantized, quantized)


def test_a_prefix_of_the_codebooks_decodes():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(4, 3, 16)
    x = torch.randn(200, 4)
    for _ in range(10):
        quantizer(x)
    codes = quantizer.encode(x)
    for kept in (1, 2, 3):
        expected = sum(quantizer.codebooks[m][codes[:, m]] for m in range(kept))
        torch.testing.assert_close(quantizer.decode(codes[:, :kept]), expected)
    errors = [(quantizer.decode(codes[:, :kept]) - x).square().mean() for kept in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("kept", [0, 4])
def test_no_codebook_or_too_many_do_not_decode(kept):
    quantizer = ResidualQuantizer(4, 3, 16)
    message = r"codes must be \(B, M, \.\.\.\) with M from 1 to 3 codebooks on axis 1; got shape"
    with pytest.raises(ValueError, match=message):
        quantizer.decode(torch.zeros(2, kept, dtype=torch.int64))


def numbers_kept(probability: float, steps: int = 200) -> torch.Tensor:
    quantizer = ResidualQuantizer(1, 4, 2, quantizer_dropout=probability)
    x = torch.randn(8, 1)
    return torch.tensor([quantizer(x).codes.shape[1] for _ in range(steps)])


def test_dropout_keeps_a_uniform_number_of_codebooks():
    counts = numbers_kept(1.0).bincount(minlength=5)
    assert counts[0] == 0
    assert ((counts[1:] - 50).abs() < 25).all()  # 4 standard deviations


def test_dropout_happens_with_its_probability():
    full = (numbers_kept(0.5) == 4).double().mean()
    assert full.item() == pytest.approx(0.5 + 0.5 / 4, abs=0.13)


def test_dropout_is_for_training_alone():
    quantizer = ResidualQuantizer(2, 4, 4, quantizer_dropout=1.0)
    x = torch.randn(20, 2)
    while quantizer(x).codes.shape[1] == 4:
        pass
    assert quantizer.eval()(x).codes.shape == (20, 4)


def test_dropped_codebooks_do_not_learn():
    quantizer = ResidualQuantizer(2, 4, 4, quantizer_dropout=1.0)
    x = torch.randn(20, 2)
    for _ in range(20):
        before = quantizer.state.ema_count.clone()
        kept = quantizer(x).codes.shape[1]
        after = quantizer.state.ema_count
        assert torch.equal(after[kept:], before[kept:])
        assert not torch.equal(after[:kept], before[:kept])


def test_usage_covers_the_codebooks_kept():
    out = ResidualQuantizer(2, 4, 4, quantizer_dropout=1.0)(torch.randn(20, 2))
    assert len(out.usage) == len(out.codebook_sizes) == out.codes.shape[1]


def test_dropout_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"quantizer_dropout must lie in \[0, 1\]; got 1.5"):
        ResidualQuantizer(2, 4, 4, quantizer_dropout=1.5)
