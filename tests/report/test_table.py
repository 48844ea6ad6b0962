import torch

from depthq.analysis import CodeCounts
from depthq.report import comparison_table, summarize_codes


def test_one_column_per_run_and_dashes_where_a_run_has_no_such_level():
    coin = (torch.arange(400) % 2).view(-1, 1, 1, 1)
    one = summarize_codes(CodeCounts([4]).update(coin))
    two = summarize_codes(CodeCounts([[4, 4], [4]]).update([coin.expand(-1, 2, -1, -1), 0 * coin]))
    rows = {line[:40].strip(): line[40:].split() for line in comparison_table({"one": one, "two": two}).splitlines()}
    assert rows[""] == ["one", "two"]
    assert rows["level 0: mean entropy of a code, nats"] == ["0.693", "0.693"]
    assert rows["level 0: mean usage, %"] == ["50.000", "50.000"]
    assert rows["level 0: mean perplexity"] == ["2.000", "2.000"]
    assert rows["level 0: mean MI, nats, plug-in"] == ["-", "0.693"]
    assert rows["level 1: mean entropy of a code, nats"] == ["-", "0.000"]
    assert rows["mean MI across levels, nats, plug-in"] == ["-", "0.000"]
    assert rows["level 0: mean MI, nats, Miller-Madow"] == ["-", "0.694"]  # log 2 + 1 / 800
    assert rows["total correlation, nats, at least"] == ["0.000", "0.693"]
