"""Many processes do what one does with their joined batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from one_of_many_processes import KINDS, NUM_STEPS, entropy_quantizer, fixed_codebooks, joined_batch, make

SCRIPT = Path(__file__).parent / "one_of_many_processes.py"


@pytest.fixture(scope="module", params=[2, 3])
def results(request, tmp_path_factory):
    """What each of 2 or 3 processes found."""
    folder = tmp_path_factory.mktemp("processes")
    torch.save(entropy_quantizer().state_dict(), folder / "entropy.pt")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), str(request.param), folder], env=environment)
        for rank in range(request.param)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0] * request.param
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


@pytest.mark.parametrize("kind", KINDS)
def test_codebooks_are_equal_in_all_processes(results, kind):
    first, *others = (result["states"][kind] for result in results)
    for other in others:
        for step in range(NUM_STEPS):
            assert all(torch.equal(first[step][name], other[step][name]) for name in first[step])


@pytest.mark.parametrize("kind", KINDS)
def test_codebooks_equal_those_of_one_process_with_the_joined_batch(results, kind):
    quantizer = make(kind)
    for step, state in enumerate(results[0]["states"][kind]):
        quantizer(joined_batch(step))
        scale = max(1.0, joined_batch(step).abs().max().item())  # float32 rounds a residual as it does its latent
        assert (state["state.weight"] - quantizer.state.weight).abs().max() <= 1e-6 * scale
        assert torch.equal(state["state.recently_redrawn"], quantizer.state.recently_redrawn)
        torch.testing.assert_close(state["state.ema_count"], quantizer.state.ema_count, rtol=1e-6, atol=1e-6)
    assert quantizer.state.recently_redrawn[1:].sum() > 0  # or this would not have tested re-drawing


def test_fixed_codebooks_count_the_codes_of_all_processes(results):
    quantizer = fixed_codebooks()
    for step in range(NUM_STEPS):
        quantizer(joined_batch(step))
    assert all(torch.equal(result["counts"], quantizer.state.recent_count) for result in results)


def test_entropy_is_that_of_the_joined_batch(results):
    quantizer = entropy_quantizer()
    quantizer(joined_batch(1)[:48]).entropy_loss.backward()
    for result in results:
        torch.testing.assert_close(result["entropy_gradient"], quantizer.state.weight.grad, rtol=1e-4, atol=1e-6)


def test_non_finite_latents_in_one_process_raise_in_all(results):
    assert all(result["raises"] for result in results)


def test_a_network_trains_under_distributed_data_parallel(results):
    first, *others = (result["network"] for result in results)
    for other in others:
        assert all(torch.equal(first["state"][name], other["state"][name]) for name in first["state"])
    assert first["losses"][-1] < 0.5 * first["losses"][0]
