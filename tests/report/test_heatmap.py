import torch

from depthq.analysis import CodeCounts, summarize_codes
from depthq.report.heatmap import entropy_maps, information_map


def summary(sizes, *levels, limit_bytes=None):
    return summarize_codes(CodeCounts(sizes, limit_bytes=limit_bytes).update(list(levels)))


def coin(*shape):
    return (torch.arange(400) % 2).view(-1, 1, 1, 1).expand(400, *shape)


def test_matrix_says_what_each_cell_is():
    heatmap = information_map(summary([[2, 2]], torch.cat([coin(1, 1, 1), 0 * coin(1, 1, 1)], dim=1)))
    assert heatmap.columns == ("0.0", "0.1")
    name, (own, other) = heatmap.rows[0]
    assert name == "0.0"
    assert (own.value, own.share) == ("1.00", None)
    assert own.remark == "entropy of codebook 0.0: 1.000 bits"
    assert (other.value, other.share) == ("0.000", 0)
    assert other.remark == "0.0 and 0.1 share 0.000 bits, 0.000 by shuffle, 0.000 by Miller-Madow"
    assert heatmap.ends == ("0.000", "0.000")


def test_colours_are_of_the_pairs_alone():
    """The second says half of what the first does, log 2 of log 4; the third says nothing."""
    four = torch.arange(400).view(-1, 1, 1, 1) % 4
    heatmap = information_map(summary([[4, 4, 4]], torch.cat([four, four // 2, 0 * four], dim=1)))
    shares = [[cell.share for cell in cells] for _, cells in heatmap.rows]
    assert shares == [[None, 1, 0], [1, None, 0], [0, 0, None]]
    assert heatmap.ends == ("0.000", "1.00")


def test_levels_are_parted_by_a_line():
    heatmap = information_map(summary([[2, 2], [2]], coin(2, 1, 1), coin(1, 1, 1)))
    assert heatmap.breaks == {2}


def test_each_level_has_its_own_scale():
    """Level 0 is a coin at its one position; level 1 is constant but at one of four, a rare code there."""
    fine = torch.zeros(400, 1, 2, 2, dtype=torch.int64)
    fine[:, 0, 1, 0] = torch.arange(400) % 4 == 0
    coarse, finer = entropy_maps(summary([[2], [2]], coin(1, 1, 1), fine))
    assert coarse.ends == ("1.00", "1.00")
    assert finer.ends == ("0.000", "0.81")
    assert [[cell.share for cell in cells] for _, cells in finer.rows] == [[0, 0], [1, 0]]
    assert finer.rows[1][1][0].remark == "row 1, column 0: 0.811 bits"


def test_a_flat_map_has_a_scale():
    (heatmap,) = entropy_maps(summary([[2]], 0 * coin(1, 2, 2)))
    assert {cell.share for _, cells in heatmap.rows for cell in cells} == {0}


def test_values_are_shown_where_they_fit():
    few, many = (information_map(summary([[2] * count], coin(count, 1, 1))) for count in (12, 13))
    assert few.shows_values
    assert not many.shows_values


def test_sequences_are_one_row_and_video_its_frames_one_below_another():
    (sequence,) = entropy_maps(summary([[2]], (torch.arange(400) % 2).view(-1, 1, 1).expand(-1, 1, 5)))
    assert sequence.title == "Level 0, 1 x 5 positions"
    (video,) = entropy_maps(summary([[2]], coin(1, 2, 3)[:, :, None].expand(-1, 1, 4, 2, 3)))
    assert video.title == "Level 0, 8 x 3 positions"
    assert entropy_maps(summary([[2]], (torch.arange(400) % 2)[:, None])) == []


def test_what_was_left_out_has_no_map():
    left_out = summary([[2, 2]], coin(2, 2, 2), limit_bytes=0)
    assert information_map(left_out) is None
    assert entropy_maps(left_out) == []
