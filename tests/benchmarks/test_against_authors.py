"""The plain form must be what it stands for, or a comparison with it says nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_benchmark_runs_names_both_and_draws(tmp_path):
    command = [sys.executable, BENCHMARKS / "against_authors.py", "--smoke", "--minutes", "0.02"]
    command += ["--out", tmp_path / "curves.png"]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    assert (tmp_path / "curves.png").stat().st_size > 0
    for title in ("one training step, l2", "one training step, logistic_mixture", "log p of the mixture"):
        assert title in result.stdout
    assert '{"name": "seconds to the L2 of the plain form", "l2": ' in result.stdout


@pytest.fixture
def against_authors(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import against_authors

    return against_authors


def test_plain_mixture_gives_the_likelihood_that_ours_gives(against_authors):
    parameters, images = against_authors.mixture_batch(2)
    images[0, :, 0], images[1, :, 0] = 0, 255
    ours = against_authors.LogisticMixtureLikelihood(3).log_prob(parameters, images).sum(1)
    plain = against_authors.plain_mixture_log_prob(parameters, images)
    # PixelCNN++ takes the density where a bin holds less than 1e-5: near, not exact.
    torch.testing.assert_close(plain, ours, rtol=1e-3, atol=2e-2)


def test_plain_form_learns(against_authors):
    torch.manual_seed(0)
    size = against_authors.SIZES["smoke"]
    model = against_authors.PlainDQAE("l2", **size)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    images = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    errors = []
    for _ in range(150):
        loss, error = model.loss(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.6 * errors[0]
