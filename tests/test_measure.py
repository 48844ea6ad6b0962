"""Evaluation figures against hand literals, laws and scikit-image."""

import json
import math
import multiprocessing
from dataclasses import replace

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from depthq import DQAE, Codes
from depthq.measure import Evaluator
from depthq.models import PRESETS, DQAEOutput

TINY = PRESETS["tiny"]


def images_of(batch=4, channels=3, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, channels, size, size), dtype=torch.uint8, generator=generator)


def output_of(model, reconstructions, codes=None, nll_nats=0.0):
    """What a model with an L2 likelihood gives when its means are `reconstructions` in grey levels."""
    channels = reconstructions.shape[1]
    deviation = 255 * torch.tensor([0.229, 0.224, 0.225])
    mean = 255 * torch.tensor([0.485, 0.456, 0.406])
    if channels == 1:
        deviation, mean = deviation.mean(), mean.mean()
    scale, shift = deviation.view(1, -1, 1, 1), mean.view(1, -1, 1, 1)
    return DQAEOutput(
        loss=torch.zeros(()),
        nll_nats=torch.full((len(reconstructions),), nll_nats),
        commitment_loss=torch.zeros(()),
        codes=codes,
        parameters=(reconstructions.float() - shift) / scale,
        levels=(),
    )


def figures_of(originals, reconstructions, config=TINY, codes=None):
    model = DQAE(replace(config, image_channels=originals.shape[1]))
    codes = codes or model.eval().encode(originals)
    evaluator = Evaluator(model)
    evaluator.update(originals, output_of(model, reconstructions, codes))
    return evaluator.compute()


def test_known_offset_gives_known_figures():
    originals = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    figures = figures_of(originals, originals.float() + 10)
    per_channel = [(10 / 255 / deviation) ** 2 for deviation in (0.229, 0.224, 0.225)]
    assert figures.images == 2
    assert figures.mse_normalized == pytest.approx(sum(per_channel) / 3, rel=1e-4)
    assert figures.psnr_db == pytest.approx(20 * math.log10(25.5), rel=1e-5)  # 28.13 dB


def test_known_offset_of_gray_images_is_in_the_mean_deviation():
    originals = torch.full((1, 1, 16, 16), 100, dtype=torch.uint8)
    figures = figures_of(originals, originals.float() + 10)
    assert figures.mse_normalized == pytest.approx((10 / 255 / 0.226) ** 2, rel=1e-4)


def test_exact_images_have_a_finite_psnr_and_an_ssim_of_one():
    originals = images_of()
    figures = figures_of(originals, originals.float())
    assert figures.psnr_db == pytest.approx(10 * math.log10(255**2 * 3 * 16 * 16))  # one of 768 off by one
    assert figures.ssim == pytest.approx(1, abs=1e-6)
    assert figures.mse_normalized == pytest.approx(0, abs=1e-10)


def test_mean_colour_of_flat_images_is_exact():
    flat = torch.full((2, 3, 16, 16), 7, dtype=torch.uint8)
    assert math.isfinite(figures_of(flat, flat.float() + 1).psnr_db_mean_colour)


def test_mean_colour_of_two_halves():
    halves = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    halves[..., 8:] = 200
    figures = figures_of(halves, halves.float())
    assert figures.psnr_db_mean_colour == pytest.approx(20 * math.log10(255 / 100), rel=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_agree_with_scikit_image(channels):
    originals = images_of(channels=channels, size=24)
    noise = torch.randn(originals.shape, generator=torch.Generator().manual_seed(1)) * 20
    ours = (originals.float() + noise).clamp(0, 255).round()
    figures = figures_of(originals, ours)
    psnr, ssim = [], []
    for original, other in zip(originals.numpy(), ours.to(torch.uint8).numpy(), strict=True):
        psnr.append(peak_signal_noise_ratio(original, other, data_range=255))
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        ssim.append(structural_similarity(original, other, channel_axis=0, **settings))
    assert figures.psnr_db == pytest.approx(sum(psnr) / 4, rel=1e-5)
    assert figures.ssim == pytest.approx(sum(ssim) / 4, abs=2e-3)


def test_code_bits_are_the_codes_own_share():
    codes = Codes((torch.zeros(1, 2, 4, 4, dtype=torch.int64),), ((8, 8),))
    originals = images_of(1)
    figures = figures_of(originals, originals.float(), codes=codes)
    assert figures.code_bits_per_dim == 16 * 2 * 3 / 768
    assert figures.code_bits_per_pixel == 16 * 2 * 3 / 256


def test_total_is_image_plus_codes_in_bits():
    model = DQAE(replace(TINY, likelihood="categorical")).eval()
    originals = images_of()
    evaluator = Evaluator(model)
    with torch.no_grad():
        output = model(originals)
    evaluator.update(originals, output)
    figures = evaluator.compute()
    nats = output.nll_nats.mean().item() / 768
    assert figures.nll_nats_per_dim == pytest.approx(nats)
    assert figures.total_bits_per_dim == pytest.approx(nats / math.log(2) + 96 / 768)


def test_density_of_l2_is_never_shown_as_bits():
    originals = images_of()
    figures = figures_of(originals, originals.float())
    assert figures.nll_nats_per_dim is None
    assert figures.nll_bits_per_dim is None
    assert figures.total_bits_per_dim is None
    assert figures.code_bits_per_dim is not None


def test_codebook_figures_of_hand_codes():
    codes = Codes((torch.tensor([[[[0, 1], [2, 3]], [[5, 5], [5, 5]]]]),), ((8, 8),))
    originals = images_of(1, size=16)
    (level,) = figures_of(originals, originals.float(), codes=codes).levels
    assert level.perplexity == pytest.approx([4, 1])
    assert level.usage == pytest.approx([0.5, 0.125])
    assert level.entropy_bits == pytest.approx([2, 0], abs=1e-9)


def test_batches_do_not_matter():
    model = DQAE(replace(TINY, likelihood="categorical")).eval()
    originals = images_of(10)
    figures = []
    for sizes in ([10], [1, 2, 7]):
        evaluator = Evaluator(model)
        with torch.no_grad():
            for images in originals.split(sizes):
                evaluator.update(images, model(images))
        figures.append(evaluator.compute())
    whole, parts = figures
    assert parts.images == whole.images == 10
    for name in ("nll_nats_per_dim", "mse_normalized", "psnr_db", "psnr_db_mean_colour", "ssim"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-4), name
    assert parts.levels == whole.levels


def test_figures_are_those_of_float32_under_autocast():
    originals = images_of()
    reconstructions = originals.flip(0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = figures_of(originals, reconstructions)
    exact = figures_of(originals, reconstructions)
    assert (mixed.ssim, mixed.psnr_db, mixed.mse_normalized) == (exact.ssim, exact.psnr_db, exact.mse_normalized)


def test_diverged_model_is_refused():
    originals = images_of()
    evaluator = Evaluator(model := DQAE(TINY))
    with pytest.raises(ValueError, match="must give finite figures; 4 of 4 images got none; it diverged"):
        evaluator.update(originals, output_of(model, originals, nll_nats=float("nan")))


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="images must hold at least one image; got none"):
        Evaluator(DQAE(TINY)).compute()


PROCESS = """
import json, os, torch
from dataclasses import asdict
from depthq import DQAE
from depthq.measure import Evaluator
from depthq.models import PRESETS
torch.set_num_threads(1)
rank, world = {rank}, {world}
if world > 1:
    torch.distributed.init_process_group("gloo", init_method="file://{meeting}", rank=rank, world_size=world)
torch.manual_seed(0)
model = DQAE(PRESETS["tiny"]).eval()
images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)[rank::world]
evaluator = Evaluator(model)
with torch.no_grad():
    evaluator.update(images, model(images))
figures = asdict(evaluator.compute())
open("{result}" + str(rank), "w").write(json.dumps(figures))
if world > 1:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def test_two_processes_give_the_figures_of_one(tmp_path):
    context = multiprocessing.get_context("forkserver")
    settings = {"meeting": tmp_path / "meeting"}
    scripts = [PROCESS.format(rank=0, world=1, result=tmp_path / "one", **settings)]
    scripts += [PROCESS.format(rank=rank, world=2, result=tmp_path / "two", **settings) for rank in range(2)]
    children = [context.Process(target=exec, args=(script, {})) for script in scripts]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
        assert child.exitcode == 0
    one, first, second = (json.loads((tmp_path / name).read_text()) for name in ("one0", "two0", "two1"))
    assert first == second
    assert first["images"] == one["images"] == 6
    assert first["levels"] == one["levels"]
    for name in ("mse_normalized", "psnr_db", "psnr_db_mean_colour", "ssim"):
        assert first[name] == pytest.approx(one[name], rel=1e-5), name
