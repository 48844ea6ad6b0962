"""Tables and numbers on the pages."""

import pytest

from studies.dq_paper.markdown import cell, table
from studies.dq_paper.row_results import Measured


def test_a_single_seed_has_no_spread():
    assert cell(Measured(0.04)) == "0.04"
    assert cell(None) == ""


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [
        (0.04191, 0.00312, "0.042 ± 0.003 (2)"),
        (0.04191, 0.00112, "0.0419 ± 0.0011 (2)"),
        (123.4, 30.0, "123 ± 30 (2)"),
        (2.188, 0.0, "2.188"),  # the same for all seeds
    ],
)
def test_mean_has_the_digits_that_its_spread_leaves(mean, deviation, text):
    assert cell(Measured(mean, deviation, seeds=2)) == text


def test_table_is_markdown():
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
