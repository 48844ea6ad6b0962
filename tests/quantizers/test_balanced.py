"""Codes with prices: used evenly, near all the same, and without a trace of gradient."""

import copy

import pytest
import torch

import depthq
from depthq.quantizers.balanced import BalancedCodes


@pytest.fixture
def vectors():
    """Three in four lie about one place, where nearest codewords crowd."""
    torch.manual_seed(0)
    x = torch.randn(2000, 8)
    x[:1500] *= 0.1
    return x


def most_used_share(codes: torch.Tensor, size: int) -> float:
    return max(torch.bincount(column, minlength=size).max().item() / len(column) for column in codes.unbind(1))


@pytest.mark.parametrize("make", [depthq.DepthwiseQuantizer, depthq.ResidualQuantizer])
def test_codes_are_used_evenly(make, vectors):
    quantizer = make(8, 2, 4).fit(vectors[::2], steps=5, progress=False).eval()
    balanced = BalancedCodes(quantizer, vectors)
    assert most_used_share(quantizer.encode(vectors), 4) > 0.4
    assert most_used_share(balanced.encode(vectors), 4) < 0.28


def test_what_learns_by_gradient_leaves_none_in_the_prices(vectors):
    quantizer = depthq.DepthwiseQuantizer(8, 2, 4, codebook_dim=2, codebook_update="gradient").eval()
    balanced = BalancedCodes(quantizer, vectors)
    assert not balanced.prices.requires_grad
    assert torch.equal(copy.deepcopy(balanced).encode(vectors), balanced.encode(vectors))


def test_vectors_of_another_width_are_refused(vectors):
    balanced = BalancedCodes(depthq.DepthwiseQuantizer(8, 2, 4).eval(), vectors)
    with pytest.raises(ValueError, match=r"dim must be the size of axis 1; got dim=8 and x of shape \(2000, 7\)"):
        balanced.encode(vectors[:, :7])
