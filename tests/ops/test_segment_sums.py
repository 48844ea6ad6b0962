import pytest
import torch

from depthq.ops import segment_sums


def test_hand_counted_statistics():
    latents = torch.tensor([[[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], [[5.0, 5.0], [6.0, 6.0], [7.0, 7.0]]])
    codes = torch.tensor([[1, 0, 1], [3, 3, 3]])
    counts, sums = segment_sums(latents, codes, 4)
    assert counts.tolist() == [[1, 2, 0, 0], [0, 0, 0, 3]]
    assert sums[0].tolist() == [[10, 20], [101, 202], [0, 0], [0, 0]]
    assert sums[1].tolist() == [[0, 0], [0, 0], [0, 0], [18, 18]]


@pytest.mark.parametrize("layout", ["contiguous", "neighbours", "shared"])
def test_agrees_with_one_hot_products_in_any_layout(layout):
    generator = torch.Generator().manual_seed(0)
    latents = {
        "contiguous": lambda: torch.randn(3, 50, 4, generator=generator),
        "neighbours": lambda: torch.randn(50, 3, 4, generator=generator).transpose(0, 1),
        "shared": lambda: torch.randn(50, 4, generator=generator).expand(3, 50, 4),
    }[layout]()
    codes = torch.randint(7, (3, 50), generator=generator)
    one_hot = torch.nn.functional.one_hot(codes, 7).float()
    counts, sums = segment_sums(latents, codes, 7)
    torch.testing.assert_close(counts, one_hot.sum(1))
    torch.testing.assert_close(sums, one_hot.transpose(1, 2) @ latents)


def test_no_vectors_have_no_statistics():
    counts, sums = segment_sums(torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.int64), 4)
    assert counts.shape == (2, 4)
    assert sums.shape == (2, 4, 3)
    assert not counts.any()
    assert not sums.any()


def test_statistics_carry_no_gradient():
    counts, sums = segment_sums(torch.ones(1, 2, 3, requires_grad=True), torch.zeros(1, 2, dtype=torch.int64), 1)
    assert not counts.requires_grad
    assert not sums.requires_grad


@pytest.mark.parametrize(
    ("latents", "codes", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), r"latents must be float32 \(M, N, D\); got .*\(2, 3\)"),
        (torch.zeros(1, 2, 3).double(), torch.zeros(1, 2, dtype=torch.int64), "latents must be float32.*float64"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.int32), "codes must be int64.*got torch.int32"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.int64), r"shape \(1, 2\) of the latents; got .*\(1, 3\)"),
    ],
)
def test_bad_input_is_named(latents, codes, message):
    with pytest.raises(ValueError, match=message):
        segment_sums(latents, codes, 4)
