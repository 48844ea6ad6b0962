"""Metrics of one pass over images against hand literals, laws and scikit-image; images drawn at random."""

import json
import math
import multiprocessing
from dataclasses import replace

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from depthq import DQAE, Codes
from depthq.analysis import CodeCounts
from depthq.measure import ImageSample, Measuring, measure
from depthq.models import PRESETS, DQAEOutput
from depthq.pixels import pad_to_multiple

TINY = PRESETS["tiny"]


def images_of(batch=4, channels=3, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, channels, size, size), dtype=torch.uint8, generator=generator)


def output_of(reconstructions, codes=None):
    """What a model with an L2 likelihood gives when its means are `reconstructions` in grey values."""
    channels = reconstructions.shape[1]
    deviation = 255 * torch.tensor([0.229, 0.224, 0.225])
    mean = 255 * torch.tensor([0.485, 0.456, 0.406])
    if channels == 1:
        deviation, mean = deviation.mean(), mean.mean()
    scale, shift = deviation.view(1, -1, 1, 1), mean.view(1, -1, 1, 1)
    return DQAEOutput(parameters=(reconstructions.float() - shift) / scale, codes=codes, levels=())


def measured(originals, reconstructions, codes=None, **options):
    model = DQAE(replace(TINY, image_channels=originals.shape[1]))
    codes = codes or model.eval().encode(originals)
    measuring = Measuring(model, **options)
    measuring.update(originals, output_of(reconstructions, codes))
    return measuring.compute()


def test_known_offset_gives_known_metrics():
    originals = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    measurement = measured(originals, originals.float() + 10)
    per_channel = [(10 / 255 / deviation) ** 2 for deviation in (0.229, 0.224, 0.225)]
    assert measurement.images == 2
    assert measurement.mse_normalized == pytest.approx(sum(per_channel) / 3, rel=1e-4)
    assert measurement.psnr_db == pytest.approx(20 * math.log10(25.5), rel=1e-5)  # 28.13 dB


def test_known_offset_of_gray_images_is_in_the_mean_deviation():
    originals = torch.full((1, 1, 16, 16), 100, dtype=torch.uint8)
    measurement = measured(originals, originals.float() + 10)
    assert measurement.mse_normalized == pytest.approx((10 / 255 / 0.226) ** 2, rel=1e-4)


def test_exact_images_have_a_finite_psnr_and_an_ssim_of_one():
    originals = images_of()
    measurement = measured(originals, originals.float())
    assert measurement.psnr_db == pytest.approx(10 * math.log10(255**2 * 3 * 16 * 16))  # one of 768 off by one
    assert measurement.ssim == pytest.approx(1, abs=1e-6)
    assert measurement.mse_normalized == pytest.approx(0, abs=1e-10)


def test_mean_colour_of_flat_images_is_exact():
    flat = torch.full((2, 3, 16, 16), 7, dtype=torch.uint8)
    assert math.isfinite(measured(flat, flat.float() + 1).psnr_db_mean_colour)


def test_mean_colour_of_two_halves():
    halves = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    halves[..., 8:] = 200
    measurement = measured(halves, halves.float())
    assert measurement.psnr_db_mean_colour == pytest.approx(20 * math.log10(255 / 100), rel=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_agree_with_scikit_image(channels):
    originals = images_of(channels=channels, size=24)
    noise = torch.randn(originals.shape, generator=torch.Generator().manual_seed(1)) * 20
    ours = (originals.float() + noise).clamp(0, 255).round()
    measurement = measured(originals, ours)
    psnr, ssim = [], []
    for original, other in zip(originals.numpy(), ours.to(torch.uint8).numpy(), strict=True):
        psnr.append(peak_signal_noise_ratio(original, other, data_range=255))
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        ssim.append(structural_similarity(original, other, channel_axis=0, **settings))
    assert measurement.psnr_db == pytest.approx(sum(psnr) / 4, rel=1e-5)
    assert measurement.ssim == pytest.approx(sum(ssim) / 4, abs=2e-3)


def test_code_bits_are_the_codes_own_share():
    codes = Codes((torch.zeros(1, 2, 4, 4, dtype=torch.int64),), ((8, 8),))
    originals = images_of(1)
    measurement = measured(originals, originals.float(), codes=codes)
    assert measurement.code_bits_per_dim == 16 * 2 * 3 / 768
    assert measurement.code_bits_per_pixel == 16 * 2 * 3 / 256


def test_total_is_image_plus_codes_in_bits():
    model = DQAE(replace(TINY, likelihood="categorical")).eval()
    originals = images_of()
    measurement = measure(model, [originals])
    nats = -model.likelihood.log_prob(model(originals).parameters, originals).mean().item()
    assert measurement.nll_nats_per_dim == pytest.approx(nats)
    assert measurement.total_bits_per_dim == pytest.approx(nats / math.log(2) + 96 / 768)


def walked_nats(model, images):
    """-log p(images | codes) under the causal head, of which each pixel is read only when it has been priced."""
    height, width = images.shape[2:]
    output, head = model(pad_to_multiple(images, model.config.image_multiple)), model.causal_head
    walk = head.walk(output.features[:, :, :height, :width], torch.zeros_like(images))
    nats = 0.0
    for pixel in torch.arange(height * width).split(1):
        values = images.flatten(2)[:, :, pixel]
        parameters = walk.parameters(pixel).transpose(1, 2)[..., None]
        nats -= float(head.likelihood.log_prob(parameters, values[..., None]).sum())
        walk.write(pixel, values)
    return nats, output.codes.num_bits() * len(images)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
def test_bits_of_the_causal_head_are_those_of_a_walk_pixel_by_pixel(channels):
    torch.manual_seed(0)
    model = DQAE(replace(TINY, likelihood="logistic_mixture", horizon=2, image_channels=channels)).eval()
    for weight in model.causal_head.parameters():  # it starts blind to neighbours and features
        weight += 0.1 * torch.randn_like(weight)
    batches = [images_of(2, channels)[:, :, :13, :15], images_of(1, channels, seed=1)[:, :, :5]]
    measurement = measure(model, batches)
    nats, bits = map(sum, zip(*(walked_nats(model, images) for images in batches), strict=True))
    dims = sum(images.numel() for images in batches)
    assert measurement.causal_nll_bits_per_dim == pytest.approx(nats / math.log(2) / dims, rel=1e-5)
    assert measurement.code_bits_per_dim == pytest.approx(bits / dims, rel=1e-9)
    assert measurement.total_bits_per_dim == measurement.causal_nll_bits_per_dim + measurement.code_bits_per_dim
    assert measurement.nll_bits_per_dim != pytest.approx(measurement.causal_nll_bits_per_dim, rel=0.01)


def test_density_of_l2_is_never_shown_as_bits():
    originals = images_of()
    measurement = measured(originals, originals.float())
    assert measurement.nll_nats_per_dim is None
    assert measurement.nll_bits_per_dim is None
    assert measurement.total_bits_per_dim is None
    assert measurement.code_bits_per_dim is not None


def test_codebook_metrics_of_hand_codes():
    codes = Codes((torch.tensor([[[[0, 1], [2, 3]], [[5, 5], [5, 5]]]]),), ((8, 8),))
    originals = images_of(1, size=16)
    (level,) = measured(originals, originals.float(), codes=codes).levels
    assert level.perplexity == pytest.approx([4, 1])
    assert level.usage == pytest.approx([0.5, 0.125])
    assert level.entropy_bits == pytest.approx([2, 0], abs=1e-9)


def test_batches_do_not_matter():
    model = DQAE(replace(TINY, likelihood="categorical")).eval()
    whole, parts = (measure(model, images_of(10).split(sizes)) for sizes in ([10], [1, 2, 7]))
    assert parts.images == whole.images == 10
    for name in ("nll_nats_per_dim", "mse_normalized", "psnr_db", "psnr_db_mean_colour", "ssim"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-4), name
    assert parts.levels == whole.levels


class KnownPrior:
    """Codes of the first image of a batch cost 1 nat, of the next 2, and so on."""

    suits_any_grid = True

    def nll_nats(self, codes):
        return torch.arange(1, len(codes) + 1, dtype=torch.float64)


def test_rate_is_the_mean_over_images_of_what_the_prior_says():
    model = DQAE(replace(TINY, likelihood="categorical")).eval()
    measurement = measure(model, images_of(4).split([3, 1]), prior=KnownPrior())  # 1, 2, 3 and 1 nats
    assert measurement.prior_bits_per_dim == pytest.approx(7 / 4 / math.log(2) / 768, rel=1e-12)
    assert measurement.total_bits_per_dim_with_prior == pytest.approx(
        measurement.total_bits_per_dim - measurement.code_bits_per_dim + measurement.prior_bits_per_dim
    )
    without = measure(model, images_of(4).split([3, 1]))
    assert without.prior_bits_per_dim is None
    assert without.total_bits_per_dim_with_prior is None
    assert without.total_bits_per_dim == measurement.total_bits_per_dim


def test_rate_of_many_images_is_as_exact_as_of_one():
    originals = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    codes = Codes((torch.zeros(1, 2, 4, 4, dtype=torch.int64),), ((8, 8),))
    measuring = Measuring(DQAE(replace(TINY, image_channels=1)))
    for _ in range(1000):
        measuring.update(originals, output_of(originals, codes))
    assert measuring.compute().code_bits_per_dim == pytest.approx(16 * 2 * 3 / 256, rel=1e-13)


def test_the_pass_counts_pairs_of_codes_for_who_asks_for_them():
    model, batches = DQAE(TINY).eval(), images_of(6).split(4)
    counts = CodeCounts(model.codebook_sizes)
    measurement = measure(model, batches, counts=counts)
    expected = CodeCounts(model.codebook_sizes).update(model.encode(images_of(6)))
    assert torch.equal(counts.joint((0, 0), (0, 1)), expected.joint((0, 0), (0, 1)))
    assert measurement.levels == measure(model, batches).levels


@pytest.mark.parametrize("quantizer", ["depthwise", "none"])
def test_counts_of_other_codebooks_are_refused(quantizer):
    model = DQAE(replace(TINY, quantizer=quantizer))
    with pytest.raises(
        ValueError, match=r"counts must have this model's codebook sizes .*; got \(\(3,\),\); make them"
    ):
        measure(model, [images_of()], counts=CodeCounts([3]))


def test_what_is_beside_sees_every_batch_and_output():
    model, seen = DQAE(TINY).eval(), []
    measure(model, images_of(6).split(4), beside=[lambda images, output: seen.append((images, output.codes))])
    assert [(len(images), len(codes)) for images, codes in seen] == [(4, 4), (2, 2)]
    assert torch.equal(torch.cat([images for images, _ in seen]), images_of(6))


def test_metrics_are_those_of_float32_under_autocast():
    originals = images_of()
    reconstructions = originals.flip(0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = measured(originals, reconstructions)
    exact = measured(originals, reconstructions)
    assert (mixed.ssim, mixed.psnr_db, mixed.mse_normalized) == (exact.ssim, exact.psnr_db, exact.mse_normalized)


def test_diverged_model_is_refused():
    originals = images_of()
    measuring = Measuring(DQAE(TINY))
    with pytest.raises(ValueError, match="must give finite metrics; 4 of 4 images got none; it diverged"):
        measuring.update(originals, output_of(originals * float("nan")))


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="images must hold at least one image; got none"):
        measure(DQAE(TINY), [])


PROCESS = """
import json, os, torch
from dataclasses import asdict
from depthq import DQAE
from depthq.measure import Measuring
from depthq.models import PRESETS
torch.set_num_threads(1)
rank, world = {rank}, {world}
if world > 1:
    torch.distributed.init_process_group("gloo", init_method="file://{meeting}", rank=rank, world_size=world)
torch.manual_seed(0)
model = DQAE(PRESETS["tiny"]).eval()
images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)[rank::world]
measuring = Measuring(model)
with torch.no_grad():
    for image in images.split(1):  # how sums are rounded depends on the batch
        measuring.update(image, model(image))
metrics = asdict(measuring.compute())
open("{result}" + str(rank), "w").write(json.dumps(metrics))
if world > 1:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def test_two_processes_give_the_metrics_of_one(tmp_path):
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


def drawn(count: int, size: int, seed: int = 0, batch: int = 7) -> list[int]:
    """Which of `count` images, each of its number's grey, come out."""
    sample = ImageSample(size, seed)
    for numbers in torch.arange(count, dtype=torch.uint8).split(batch):
        sample.update(numbers.view(-1, 1, 1, 1))
    return sample.images.flatten().tolist()


def test_images_are_drawn_without_replacement():
    assert len(set(drawn(50, size=8))) == 8


def test_all_come_out_where_there_are_fewer():
    assert sorted(drawn(5, size=8)) == [0, 1, 2, 3, 4]


def test_the_same_seed_draws_the_same():
    assert drawn(50, size=8) == drawn(50, size=8)
    assert drawn(50, size=8) != drawn(50, size=8, seed=1)


def test_each_image_has_the_same_chance():
    draws = torch.tensor([number for seed in range(500) for number in drawn(20, size=5, seed=seed)])
    assert torch.bincount(draws, minlength=20).tolist() == pytest.approx([125] * 20, abs=5 * (500 / 4 * 3 / 4) ** 0.5)


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="images must hold at least one image; got none"):
        _ = ImageSample(8).images
