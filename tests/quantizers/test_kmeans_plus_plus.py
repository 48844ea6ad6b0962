import torch

from depthq.quantizers.kmeans_plus_plus import kmeans_plus_plus


def uniforms(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_row_of_each_far_cluster():
    """Ten clusters, 1e4 wide apart, of very unequal size: plain draws would miss the small ones."""
    sizes = torch.tensor([1000] + [2] * 9)
    cluster = torch.arange(10).repeat_interleave(sizes)
    latents = 1e4 * cluster[:, None].float() + torch.randn(len(cluster), 3)
    rows = kmeans_plus_plus(latents.expand(4, -1, -1), uniforms(4, 10, 4))
    assert [sorted(cluster[row].tolist()) for row in rows] == [list(range(10))] * 4


def test_rows_repeat_only_when_all_vectors_are_taken():
    latents = torch.tensor([[[0.0], [1.0], [5.0], [5.0]]])
    rows = kmeans_plus_plus(latents, uniforms(1, 6, 3))[0]
    assert sorted(latents[0, rows[:3], 0].tolist()) == [0, 1, 5]
    assert rows.max() < 4


def test_probability_is_proportional_to_squared_distance():
    """From 0, the vectors 1 and 3 follow 1 to 9, if there is one candidate."""
    latents = torch.tensor([[[0.0], [1.0], [3.0]]]).expand(20_000, -1, -1)
    draws = uniforms(20_000, 2, 1)
    draws[:, 0] = 0.0  # start from the vector 0
    second = kmeans_plus_plus(latents, draws)[:, 1]
    assert abs((second == 2).double().mean().item() - 0.9) < 0.01


def test_the_best_candidate_wins():
    """From 0, candidate 10 leaves 1 + 81, candidate 11 leaves 1 + 1 + 81, candidate -9 leaves 321."""
    latents = torch.tensor([[[0.0], [10.0], [11.0], [10.0], [-9.0]]])
    draws = torch.tensor([[[0.0, 0.0, 0.0], [0.1, 0.4, 0.95]]])  # candidates 10, 11 and -9
    assert kmeans_plus_plus(latents, draws).tolist() == [[0, 1]]
