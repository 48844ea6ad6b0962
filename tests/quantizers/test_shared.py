import pytest
import torch

from depthq import SharedQuantizer

CODEBOOKS = torch.tensor([[[0.0], [10.0]], [[0.0], [1.0]]])


def test_concat_by_hand():
    quantizer = SharedQuantizer(1, 2, 2).eval()
    quantizer.state.weight.copy_(CODEBOOKS)
    out = quantizer(torch.tensor([[6.0], [0.2]]))
    assert out.codes.tolist() == [[1, 1], [0, 0]]
    assert out.quantized.tolist() == [[10, 1], [0, 0]]
    assert out.commitment_loss.item() == pytest.approx((16 + 0.04) / 2 + (25 + 0.04) / 2)


def test_sum_by_hand():
    quantizer = SharedQuantizer(1, 2, 2, combine="sum").eval()
    quantizer.state.weight.copy_(CODEBOOKS)
    assert quantizer(torch.tensor([[6.0], [0.2]])).quantized.tolist() == [[11], [0]]


def test_concat_widens_the_axis_and_sum_keeps_it():
    x = torch.randn(2, 5, 3, 3)
    assert SharedQuantizer(5, 4, 8)(x).quantized.shape == (2, 20, 3, 3)
    assert SharedQuantizer(5, 4, 8, combine="sum")(x).quantized.shape == (2, 5, 3, 3)


def test_codebooks_start_from_different_vectors():
    quantizer = SharedQuantizer(3, 2, 8)
    quantizer(torch.randn(100, 3))
    assert not torch.equal(quantizer.codebooks[0], quantizer.codebooks[1])


def test_unknown_combination_is_refused():
    with pytest.raises(ValueError, match="combine must be 'concat' or 'sum'; got 'mean'"):
        SharedQuantizer(5, 4, 8, combine="mean")
