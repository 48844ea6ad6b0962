"""What the laws run on: each quantizer of the table, or of the test file's own."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from quantizer_table import TABLE


def pytest_generate_tests(metafunc):
    """Each law of a file runs through the rows that the file's `APPLIES_TO` accepts, or all."""
    if "row" in metafunc.fixturenames:
        applies = getattr(metafunc.module, "APPLIES_TO", lambda row: True)
        table = {name: row for name, row in getattr(metafunc.module, "TABLE", TABLE).items() if applies(row)}
        metafunc.parametrize("row", table.values(), ids=table.keys())


@pytest.fixture
def make(row):
    """Makes one quantizer of the table; takes further arguments."""

    def make(**options):
        torch.manual_seed(0)
        return row.make(**options)

    return make


@pytest.fixture(params=["train", "eval"])
def mode(request):
    return request.param == "train"


@pytest.fixture
def quantizer(make):
    """In training mode, and no step taken."""
    return make()


@pytest.fixture
def latents():
    """Makes latents for a quantizer: batch, positions, and `dim` on its axis."""

    def latents(quantizer, *positions, batch=4, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, *positions, quantizer.dim, generator=generator).movedim(-1, quantizer.axis)

    return latents


@pytest.fixture
def trained(quantizer, latents):
    """A quantizer after three steps of training."""
    for seed in range(3):
        quantizer(latents(quantizer, 6, 5, seed=seed))
    return quantizer


@pytest.fixture
def snapshot():
    """Copies a module's state, to compare with `same`."""
    return lambda module: {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture
def same(snapshot):
    """Whether a module's state is, bit for bit, what `snapshot` saw."""

    def same(module, before):
        now = snapshot(module)
        return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)

    return same
