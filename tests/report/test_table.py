import json
import re
from dataclasses import asdict

import pytest
import torch

from depthq.analysis import CodeCounts, summarize_codes
from depthq.report import comparison_table


def table_rows(summaries) -> dict[str, list[str]]:
    """Figures of each row by its name; columns are two spaces apart."""
    lines = [re.split(r"\s{2,}", line) for line in comparison_table(summaries).splitlines()]
    return {name: figures for name, *figures in lines}


def test_one_column_per_run_and_dashes_where_a_run_has_no_such_level():
    coin = (torch.arange(400) % 2).view(-1, 1, 1, 1)
    one = summarize_codes(CodeCounts([4]).update(coin))
    two = summarize_codes(CodeCounts([[4, 4], [4]]).update([coin.expand(-1, 2, -1, -1), 0 * coin]))
    rows = table_rows({"one": one, "two": two})
    assert rows[""] == ["one", "two"]
    assert rows["level 0: mean entropy of a code, bits"] == ["1.000", "1.000"]
    assert rows["level 0: mean usage, %"] == ["50.000", "50.000"]
    assert rows["level 0: mean perplexity"] == ["2.000", "2.000"]
    assert rows["level 0: mean MI, bits, plug-in"] == ["-", "1.000"]
    assert rows["level 1: mean entropy of a code, bits"] == ["-", "0.000"]
    assert rows["mean MI across levels, bits, plug-in"] == ["-", "0.000"]
    assert rows["level 0: mean MI, bits, Miller-Madow"] == ["-", "1.002"]  # 1 + 1 / (800 ln 2)
    assert rows["total correlation, bits, at least, plug-in"] == ["0.000", "1.000"]


def test_one_level_has_no_figures_across_levels():
    one = summarize_codes(CodeCounts([4, 4]).update((torch.arange(400) % 2).view(-1, 1, 1, 1).expand(-1, 2, -1, -1)))
    rows = table_rows({"one": one})
    assert not any("across levels" in name for name in rows)
    assert rows["total correlation, bits, at least, plug-in"] == ["1.000"]


def test_one_codebook_has_no_rows_of_pairs():
    one = summarize_codes(CodeCounts([4]).update((torch.arange(400) % 2).view(-1, 1, 1, 1)))
    rows = table_rows({"one": one})
    assert "level 0: mean usage, %" in rows
    assert not any("mean MI" in name for name in rows)


def test_total_correlation_of_few_independent_codes_is_told_corrected_too():
    codes = torch.randint(0, 16, (300, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    rows = table_rows({"few": summarize_codes(CodeCounts([16] * 3).update(codes))})
    least = {name: float(rows[f"total correlation, bits, at least, {name}"][0]) for name in ("plug-in", "shuffle")}
    assert least["plug-in"] > 0.9
    assert least["shuffle"] == pytest.approx(0, abs=0.1)
    assert float(rows["total correlation, bits, at least, Miller-Madow"][0]) < least["plug-in"]


def test_summary_is_json(analyzed):
    summary = analyzed().summary
    content = json.loads(json.dumps(asdict(summary), allow_nan=False))
    assert [level["grid"] for level in content["levels"]] == [[4, 4], [8, 8]]
    assert len(content["mutual_information"][1]["matrix_nats"]) == 6


def test_what_was_left_out_is_a_dash():
    coin = torch.arange(400) % 2
    rows = table_rows({"rows": summarize_codes(CodeCounts([2, 2], limit_bytes=0).update(coin[:, None].expand(-1, 2)))})
    assert rows["level 0: mean entropy of a code, bits"] == ["1.000"]
    assert {rows[name][0] for name in rows if "MI" in name or "total correlation" in name} == {"-"}
