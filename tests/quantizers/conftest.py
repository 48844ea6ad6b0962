"""The table of all quantizers, which every law runs through."""

from functools import partial

import pytest
import torch

from depthq import DepthwiseQuantizer, ResidualQuantizer, SharedQuantizer

QUANTIZERS = {
    "depthwise": partial(DepthwiseQuantizer, 12, 3, 8),
    "depthwise-padded": partial(DepthwiseQuantizer, 10, 3, 8),  # 3 slices of 4
    "depthwise-uneven-dims": partial(DepthwiseQuantizer, 12, 3, 8, codebook_dim=[3, 4, 5]),
    "depthwise-uneven-sizes": partial(DepthwiseQuantizer, 12, 3, [4, 8, 6]),
    "depthwise-gradient": partial(DepthwiseQuantizer, 12, 3, 8, codebook_update="gradient"),
    "shared-concat": partial(SharedQuantizer, 5, 3, 8),
    "shared-sum": partial(SharedQuantizer, 5, 3, [4, 8, 6], combine="sum"),
    "residual": partial(ResidualQuantizer, 5, 3, [4, 8, 6]),
    "residual-gradient": partial(ResidualQuantizer, 5, 3, 8, codebook_update="gradient"),
    "residual-dropout": partial(ResidualQuantizer, 5, 3, 8, quantizer_dropout=1.0),
}


@pytest.fixture
def quantizers():
    return QUANTIZERS


@pytest.fixture(params=QUANTIZERS)
def make(request):
    """Makes one quantizer of the table; takes further arguments."""

    def make(**options):
        torch.manual_seed(0)
        return QUANTIZERS[request.param](**options)

    return make


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
