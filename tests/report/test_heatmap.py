import pytest
import torch

from depthq.analysis import CodeCounts
from depthq.report import summarize_codes
from depthq.report.heatmap import entropy_maps, information_map


def summary(sizes, *levels):
    return summarize_codes(CodeCounts(sizes).update(list(levels)))


def coin(*shape):
    return (torch.arange(400) % 2).view(-1, 1, 1, 1).expand(400, *shape)


def test_matrix_says_what_each_cell_is():
    heatmap = information_map(summary([[2, 2]], torch.cat([coin(1, 1, 1), 0 * coin(1, 1, 1)], dim=1)))
    assert heatmap.columns == ("0.0", "0.1")
    name, (own, other) = heatmap.rows[0]
    assert name == "0.0"
    assert (own.value, own.share) == ("0.69", 1)
    assert own.remark == "entropy of codebook 0.0: 0.693 nats"
    assert (other.value, other.share) == ("0.00", 0)
    assert other.remark == "0.0 and 0.1 share 0.000 nats, 0.000 by shuffle, 0.000 by Miller-Madow"
    assert (heatmap.low, heatmap.high) == (0, pytest.approx(0.6931, abs=1e-4))


def test_levels_are_parted_by_a_line():
    heatmap = information_map(summary([[2, 2], [2]], coin(2, 1, 1), coin(1, 1, 1)))
    assert heatmap.breaks == {2}


def test_entropy_maps_share_one_scale():
    """Level 0 is a coin at its one position; level 1 is constant but at one of four."""
    fine = torch.zeros(400, 1, 2, 2, dtype=torch.int64)
    fine[:, 0, 1, 0] = torch.arange(400) % 2
    coarse, finer = entropy_maps(summary([[2], [2]], coin(1, 1, 1), fine))
    assert (coarse.low, coarse.high) == (finer.low, finer.high) == (0, pytest.approx(0.6931, abs=1e-4))
    assert [[cell.share for cell in cells] for _, cells in finer.rows] == [[0, 0], [1, 0]]
    assert finer.rows[1][1][0].remark == "row 1, column 0: 0.693 nats"


def test_a_flat_map_has_a_scale():
    (heatmap,) = entropy_maps(summary([[2]], 0 * coin(1, 2, 2)))
    assert {cell.share for _, cells in heatmap.rows for cell in cells} == {0}


def test_values_are_shown_where_they_fit():
    few, many = (information_map(summary([[2] * count], coin(count, 1, 1))) for count in (12, 13))
    assert few.shows_values
    assert not many.shows_values
