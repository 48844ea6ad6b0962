"""The upkeep of codebooks: EMA, initialisation, re-drawing."""

import numpy as np
import pytest
import torch

from depthq import DepthwiseQuantizer, ResidualQuantizer, SharedQuantizer
from depthq.quantizers.codebooks import CodebookState
from depthq.quantizers.processes import GlobalRows


def step(state: CodebookState, latents: torch.Tensor) -> torch.Tensor:
    rows = GlobalRows(latents.shape[1], True, latents.device)
    state.begin_step()
    state.refresh(latents, rows)
    codes = state.search(latents)
    state.accumulate(latents, codes, rows)
    return codes


def test_ema_step_by_hand():
    """Codewords 0 and 10 with counts 2, 2; the batch -1, 1, 3 | 12; decay 0.5."""
    state = CodebookState([2], [1], decay=0.5, epsilon=1e-9)
    state.weight.copy_(torch.tensor([[[0.0], [10.0]]]))
    state.ema_count.fill_(2)
    state.ema_sum.copy_(2 * state.weight)
    codes = step(state, torch.tensor([[[-1.0], [1.0], [3.0], [12.0]]]))
    assert codes.tolist() == [[0, 0, 0, 1]]
    assert state.ema_count.tolist() == [[2.5, 1.5]]  # (2 + 3) / 2, (2 + 1) / 2
    assert state.ema_sum.tolist() == [[[1.5], [16.0]]]  # (0 + 3) / 2, (20 + 12) / 2
    assert state.weight.flatten().tolist() == pytest.approx([0, 10])  # until the next step starts
    state.move_to_ema()
    assert state.weight.flatten().tolist() == pytest.approx([1.5 / 2.5, 16 / 1.5])


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_agrees_with_numpy_over_many_steps(update):
    """The same update in a few lines of NumPy, loops and float64; no code gets rare here."""
    rng = np.random.default_rng(0)
    sizes, dims, decay, epsilon = [4, 3], [2, 3], 0.7, 1e-3
    state = CodebookState(sizes, dims, update=update, decay=decay, epsilon=epsilon, rare_code_threshold=0.0)
    centres = 10 * rng.normal(size=(2, 4, 3))
    centres[0, :, 2] = 0

    def batch():
        noise = rng.normal(size=(2, 40, 3)) * [[[1, 1, 0]], [[1, 1, 1]]]
        return np.stack([c[np.arange(40) % k] for c, k in zip(centres, sizes, strict=True)]) + noise

    first = batch()
    step(state, torch.tensor(first, dtype=torch.float32))
    weight, count = state.weight.detach().double().numpy().copy(), state.ema_count.double().numpy().copy()
    total = np.zeros_like(weight) if update == "gradient" else state.ema_sum.double().numpy().copy()
    for _ in range(6):
        latents = batch()
        codes = step(state, torch.tensor(latents, dtype=torch.float32)).numpy()
        for m, (size, dim) in enumerate(zip(sizes, dims, strict=True)):
            if update == "ema":
                n = count[m, :size].sum()
                smoothed = (count[m, :size] + epsilon) / (n + size * epsilon) * n
                weight[m, :size] = total[m, :size] / smoothed[:, None]
            distances = ((latents[m, :, None, :dim] - weight[m, None, :size, :dim]) ** 2).sum(2)
            assert (codes[m] == distances.argmin(1)).all()
            for k in range(size):
                chosen = latents[m, codes[m] == k]
                count[m, k] = decay * count[m, k] + (1 - decay) * len(chosen)
                total[m, k] = decay * total[m, k] + (1 - decay) * chosen.sum(0)
        np.testing.assert_allclose(state.weight.detach().numpy(), weight, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.ema_count.numpy(), count, rtol=1e-5, atol=1e-6)
    assert not count[1, 3:].any()
    assert not state.weight[1, 3:].detach().any()  # padding stays zero


def test_a_revived_code_is_not_overwritten_by_its_stale_average():
    """Code 1 lies far away and dies. It must come back among the data, and stay there in the steps after."""
    state = CodebookState([2], [1], decay=0.5, rare_code_threshold=0.1)
    state.weight.copy_(torch.tensor([[[0.0], [1000.0]]]))
    state.ema_count.copy_(torch.tensor([[10.0, 0.1]]))
    state.ema_sum.copy_(state.weight * state.ema_count[..., None])
    latents = torch.linspace(-1, 1, 10).view(1, 10, 1)
    step(state, latents)
    assert state.recently_redrawn[0].tolist() == [1]
    assert state.weight[0, 1] in latents
    assert state.ema_count[0, 1] > 1  # half of the fair share of 5, and what it won
    for _ in range(3):
        step(state, latents)
        assert state.weight.abs().max() <= 1
    assert state.recently_redrawn.sum() == 1


def test_settings_are_kept_as_pythons_own_numbers():
    options = {"decay": 0.5, "rare_code_threshold": 0.25, "entropy_weight": 0.5, "inverse_temperature": 2.0}
    tensors = {name: torch.tensor(value) for name, value in options.items()}
    quantizer = DepthwiseQuantizer(8, 2, 4, epsilon=np.float32(0.5), **tensors)  # type: ignore[arg-type]
    state = quantizer.state
    kept = [state.decay, state.rare_code_threshold, quantizer.entropy_weight, quantizer.inverse_temperature]
    assert [*kept, state.epsilon] == [*options.values(), 0.5]
    assert {type(each) for each in [*kept, state.epsilon]} == {float}


def test_a_threshold_of_zero_redraws_only_codes_never_set():
    state = CodebookState([2], [1], decay=0.0, rare_code_threshold=0.0)
    state.weight.copy_(torch.tensor([[[0.0], [9.0]]]))
    state.ema_count.fill_(1e-6)
    state.ema_sum.copy_(state.weight * 1e-6)
    step(state, torch.zeros(1, 4, 1))
    assert state.weight[0, 1].item() == pytest.approx(9, abs=0.1)
    assert state.recently_redrawn.sum() == 0


def test_more_codes_than_vectors_start_from_all_vectors():
    state = CodebookState([8], [1])
    step(state, torch.tensor([[[1.0], [2.0], [3.0]]]))
    assert set(state.weight.flatten().tolist()) == {1.0, 2.0, 3.0}


def test_redrawn_codewords_come_from_all_parts_of_the_batch():
    """Stratified: 4 codes of 400 vectors in order come one from each hundred."""
    state = CodebookState([4], [1])
    step(state, torch.zeros(1, 400, 1))
    state.ema_count.zero_()
    step(state, torch.arange(400.0).view(1, 400, 1))
    assert (state.weight.flatten() // 100).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(4))
def test_first_codewords_find_all_clusters_that_lie_apart(seed):
    generator = torch.Generator().manual_seed(seed)
    centers = 10 * torch.randn(2, 8, 4, generator=generator)
    rows = centers[:, torch.randint(0, 8, (400,), generator=generator)]
    state = CodebookState([8, 8], [4, 4])
    step(state, rows + 0.1 * torch.randn(rows.shape, generator=generator))
    assert torch.cdist(centers, state.weight).amin(2).max() < 1


def test_first_codewords_come_from_all_of_a_large_batch(monkeypatch):
    monkeypatch.setattr("depthq.quantizers.codebooks.FIRST_ROWS", 10)
    state = CodebookState([4], [1])
    step(state, torch.arange(400.0).view(1, 400, 1))
    assert set(state.weight.flatten().tolist()) <= set(range(0, 400, 40))
    assert state.weight.max() - state.weight.min() > 200


def test_codebooks_and_steps_draw_differently():
    state = CodebookState([16, 16], [1, 1])
    latents = torch.arange(10_000.0).view(1, -1, 1).expand(2, -1, -1)
    rows = GlobalRows(10_000, True, latents.device)
    first = state._draw(latents, rows, slice(None))
    assert (first[0] != first[1]).any()
    state.begin_step()
    assert (state._draw(latents, rows, slice(None)) != first).any()


def test_redraws_repeat_without_a_seed():
    draws = []
    for seed in range(2):
        torch.manual_seed(seed)
        quantizer = DepthwiseQuantizer(4, 2, 8)
        quantizer(torch.arange(400.0).view(100, 4))
        draws.append(quantizer.codebooks)
    assert torch.equal(*draws)


def test_one_codebook_makes_all_kinds_the_same():
    """With M = 1, depthwise, shared and residual are one quantizer: codes, losses, gradients and upkeep."""
    for update in ("ema", "gradient"):
        kinds = (DepthwiseQuantizer, SharedQuantizer, ResidualQuantizer)
        quantizers = [kind(6, 1, 8, codebook_update=update) for kind in kinds]
        for other in quantizers[1:]:
            other.load_state_dict(quantizers[0].state_dict())
        for seed in range(4):
            x = torch.randn(3, 6, 5, 5, generator=torch.Generator().manual_seed(seed))
            results = []
            for quantizer in quantizers:
                leaf = x.clone().requires_grad_()
                out = quantizer(leaf)
                (out.loss + out.quantized.square().sum()).backward()
                parameters = [p.grad for p in quantizer.parameters()]
                losses = [out.codes, out.quantized, out.loss, out.commitment_loss, out.codebook_loss]
                results.append([*losses, leaf.grad, *parameters, *quantizer.state_dict().values()])
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_given_codebooks_stay_in_a_quantizer_that_has_trained():
    torch.manual_seed(0)
    given = DepthwiseQuantizer.from_codebooks(torch.randn(2, 8, 2))
    trained = DepthwiseQuantizer(4, 2, 8)
    trained(torch.randn(100, 4))
    trained.load_state_dict(given.state_dict())
    trained(torch.randn(100, 4))
    torch.testing.assert_close(trained.codebooks, given.codebooks)
    assert not trained.state.recently_redrawn.any()


def test_an_untrained_state_starts_alike_wherever_it_is_loaded():
    torch.manual_seed(0)
    fresh, trained = DepthwiseQuantizer(4, 2, 8), DepthwiseQuantizer(4, 2, 8)
    trained(torch.randn(100, 4))
    trained.load_state_dict(fresh.state_dict())
    x = torch.randn(100, 4)
    assert torch.equal(trained(x).codes, fresh(x).codes)
