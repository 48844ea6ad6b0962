"""Fixed codebooks: how they count."""

import copy

import pytest
import torch

from depthq import BinaryQuantizer, ScalarQuantizer

FIXED = {"scalar": lambda: ScalarQuantizer(6, 3, 12), "binary": lambda: BinaryQuantizer(9, 3, 8)}


@pytest.fixture(params=FIXED)
def quantizer(request):
    return FIXED[request.param]()


def test_health_tells_of_the_codes_in_training(quantizer, latents):
    assert quantizer.health().usage.tolist() == [0, 0, 0]
    out = quantizer(latents(quantizer, 6, 5))
    quantizer.eval()(latents(quantizer, 6, 5, seed=2))
    torch.testing.assert_close(quantizer.health().perplexity, out.perplexity)
    assert quantizer.health().redrawn.tolist() == [0, 0, 0]


def test_collapse_is_seen():
    quantizer = BinaryQuantizer(7, 1, 128)
    quantizer(torch.ones(50, 7))
    assert quantizer.health().collapsed.tolist() == [True]


def test_mean_norm_is_that_of_the_codewords():
    assert BinaryQuantizer(6, 2, 8).health().mean_norm.tolist() == pytest.approx([1, 1])
    assert ScalarQuantizer(2, 2, 4).health().mean_norm.tolist() == pytest.approx([0.5, 0.5])  # -1, -1/2, 0, 1/2


def test_health_travels_with_the_state(quantizer, latents):
    quantizer(latents(quantizer, 6, 5))
    twin = copy.deepcopy(quantizer)
    twin.state.recent_count.zero_()
    twin.load_state_dict(quantizer.state_dict())
    assert str(twin.health()) == str(quantizer.health())


def test_old_counts_are_forgotten():
    quantizer = BinaryQuantizer(1, 1, 2, on_sphere=False)
    for _ in range(3):
        quantizer(torch.ones(10, 1))
    assert quantizer.health().perplexity.item() == 1
    for _ in range(1000):
        quantizer(-torch.ones(10, 1))
    assert quantizer.health().perplexity.item() == pytest.approx(1, abs=1e-3)
    assert quantizer.state.recent_count[0, 0] > 9


def test_state_of_another_codebook_size_is_refused():
    message = r"codebook_size must be that of the state to load, \[16, 16\]; got \[8, 8\]; construct the quantizer as"
    with pytest.raises(ValueError, match=message):
        BinaryQuantizer(6, 2, 8).load_state_dict(BinaryQuantizer(8, 2, 16).state_dict())
