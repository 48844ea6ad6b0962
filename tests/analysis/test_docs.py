"""The snippets of docs/analysis.md run."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()


def test_python_snippets_run_and_print_what_the_page_says(capsys):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    names = {"batches": [rng.integers(0, 128, (800, 5, 8, 8)) for _ in range(2)]}
    for snippet in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(snippet, names)
    printed = capsys.readouterr().out
    assert "Split axis 1 into 8 slices." in printed
    assert "Split axis 1 into 8 slices." in PAGE
    assert names["information"].mean_pairwise_nats == pytest.approx(0, abs=0.02)
    assert "Interval(estimate_nats=" in printed
    assert names["total_correlation_nats"](names["parity"]) == pytest.approx(0.693, abs=5e-4)
    interval = names["bootstrap_interval"](names["joint"], names["mutual_information_nats"])
    assert interval.lower_nats < 0.104 < interval.upper_nats  # what the page says 4 bins show of a large sample
