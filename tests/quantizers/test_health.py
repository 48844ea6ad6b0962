import pytest
import torch

from depthq import BinaryQuantizer, DepthwiseQuantizer, ScalarQuantizer
from depthq.quantizers import CodebookHealth


def health_of(counts, redrawn=(0, 0), sizes=(4, 2)) -> CodebookHealth:
    return CodebookHealth.from_counts(torch.tensor(counts), torch.tensor(redrawn), torch.ones(2), sizes)


def test_usage_and_perplexity_by_hand():
    """Codebook 0: two of four codes, equally often. Codebook 1: both of its two codes, 3 to 1."""
    health = health_of([[5.0, 5.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]])
    assert health.usage.tolist() == [0.5, 1.0]
    assert health.perplexity.tolist() == pytest.approx([2, 4 / 3**0.75])
    assert health.collapsed.tolist() == [False, False]


def test_a_codebook_that_lives_on_one_code_counts_as_collapsed():
    counts = torch.zeros(2, 64)
    counts[0, 7], counts[1] = 1.0, 1.0
    health = health_of(counts.tolist(), sizes=(64, 64))
    assert health.collapsed.tolist() == [True, False]
    assert str(health).count("collapsed") == 1


def test_before_training_nothing_is_used():
    health = DepthwiseQuantizer(4, 2, 64).health()
    assert health.usage.tolist() == [0, 0]
    assert health.perplexity.tolist() == [1, 1]
    assert health.redrawn.tolist() == [0, 0]


def test_table_has_a_row_per_codebook():
    health = health_of([[5.0, 5.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]], redrawn=(12, 0))
    assert str(health).splitlines() == [
        "codebook    size   usage  perplexity  re-drawn in 100 steps  mean norm",
        "       0       4   50.0%         2.0                     12          1",
        "       1       2  100.0%         1.8                      0          1",
    ]


def test_collapse_is_seen():
    """The data jump away after the first batch: most codes die, and without re-drawing they stay dead."""
    dying = DepthwiseQuantizer(4, 2, 64, decay=0.5, rare_code_threshold=0.0)
    redrawing = DepthwiseQuantizer(4, 2, 64, decay=0.5)
    for quantizer in (dying, redrawing):
        quantizer(torch.randn(100, 4))
        for _ in range(30):
            quantizer(1000 + torch.randn(200, 4))
    assert dying.health().collapsed.all()
    assert (dying.health().usage < 0.2).all()
    assert not redrawing.health().collapsed.any()


def test_a_redrawn_code_counts_as_used_only_once_it_is():
    quantizer = DepthwiseQuantizer(4, 2, 64)
    quantizer(torch.ones(100, 4))  # all codewords are the same; ties go to code 0
    health = quantizer.health()
    assert health.usage.tolist() == [1 / 64, 1 / 64]
    assert health.perplexity.tolist() == [1, 1]
    assert health.redrawn.tolist() == [64, 64]


def test_redrawn_codes_are_forgotten_after_a_hundred_steps():
    quantizer = DepthwiseQuantizer(2, 1, 4, rare_code_threshold=0.0)
    for step in range(102):
        quantizer(torch.randn(20, 2, generator=torch.Generator().manual_seed(step)))
        expected = 4 if step < 100 else 0  # the first step drew all four
        assert quantizer.health().redrawn.item() == expected


def test_mean_norm_leaves_padding_out():
    quantizer = DepthwiseQuantizer(4, 2, [1, 3])
    quantizer.state.weight[0, 0] = torch.tensor([3.0, 4.0])
    quantizer.state.weight[1] = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    assert quantizer.health().mean_norm.tolist() == [5, 2]


def test_health_travels_with_the_state():
    first, second = DepthwiseQuantizer(4, 2, 8), DepthwiseQuantizer(4, 2, 8)
    first(torch.randn(50, 4))
    second.load_state_dict(first.state_dict())
    assert str(second.health()) == str(first.health())


@pytest.mark.parametrize("quantizer", [ScalarQuantizer(6, 2, 60), BinaryQuantizer(6, 2, 8, on_sphere=False)], ids=str)
def test_mean_norm_of_a_grid_is_that_of_its_codewords(quantizer):
    expected = quantizer.codebooks.norm(dim=2).mean(1)
    torch.testing.assert_close(quantizer.health().mean_norm, expected)


def test_mean_norm_is_that_of_the_codewords_that_are_searched():
    quantizer = DepthwiseQuantizer(8, 2, 16, distance="cosine", codebook_update="gradient")
    with torch.no_grad():
        quantizer.state.weight.mul_(3)
    assert quantizer.health().mean_norm.tolist() == pytest.approx([1, 1])
