"""The DQ-AE: shapes, Algorithm 1, gradients, and files."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from depthq import DQAE, Codes, DQAEConfig
from depthq.models import PRESETS
from depthq.models.blocks import Upsample
from depthq.training import paper_objective

TINY = PRESETS["tiny"]


def images_of(config, size=16, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, config.image_channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def trained(config, size=16, steps=3, seed=0):
    """A model in eval mode whose codebooks have seen data."""
    torch.manual_seed(seed)
    model = DQAE(config)
    for step in range(steps):
        model(images_of(config, size, batch=8, seed=step))
    return model.eval()


@pytest.fixture
def two_levels():
    return trained(replace(TINY, codebook_size=(8, 16)))


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_that_the_strides_divide_works(levels, channels):
    config = replace(TINY, codebook_size=(8,) * levels, image_channels=channels)
    model = trained(config, size=config.image_multiple * 2)
    height, width = config.image_multiple * 3, config.image_multiple
    images = torch.randint(0, 256, (2, channels, height, width), dtype=torch.uint8)
    codes = model.encode(images)
    for level, maps in enumerate(codes.levels):
        stride = 4 * 2 ** (levels - 1 - level)
        assert maps.shape == (2, 2, height // stride, width // stride)
    decoded = model.decode(codes)
    assert decoded.shape == images.shape
    assert decoded.dtype == torch.uint8


@pytest.mark.parametrize(("levels", "multiple"), [(1, 4), (2, 8), (3, 16)])
@pytest.mark.parametrize("method", ["forward", "encode"])
def test_other_sizes_name_the_multiple(levels, multiple, method):
    config = replace(TINY, codebook_size=(8,) * levels)
    model = DQAE(config).eval()
    images = torch.zeros(1, 3, multiple * 2, multiple * 2 + 2, dtype=torch.uint8)
    with pytest.raises(
        ValueError,
        match=rf"multiples of {multiple}, the .* got {multiple * 2}x\d+; crop.*to_multiple\(images, {multiple}\)",
    ):
        getattr(model, method)(images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 16, 16), "images must be uint8"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), r"images must be uint8 \(B, C, H, W\)"),
        (torch.zeros(1, 1, 16, 16, dtype=torch.uint8), "must have 3 channels.*got 1; convert them"),
        (torch.zeros(1, 3, 0, 16, dtype=torch.uint8), "multiples of 4"),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        DQAE(TINY)(images)


@pytest.mark.parametrize("likelihood", ["l2", "categorical", "logistic_mixture"])
@pytest.mark.parametrize("quantizer", ["depthwise", "shared", "residual", "scalar", "binary", "none"])
@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_every_parameter_learns(quantizer, likelihood, update):
    config = replace(TINY, quantizer=quantizer, likelihood=likelihood, codebook_update=update, codebook_size=(8, 8, 8))
    torch.manual_seed(0)
    model = DQAE(config)
    # The residual branches start at zero, which hides the gradient of what lies before.
    for name, parameter in model.named_parameters():
        if "pointwise.weight" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    # Small latents all round to a scalar quantizer's value 0, of which a convolution's weights learn nothing.
    for level in model.levels:
        level.projection.weight.data *= 20
    images = images_of(config, size=32, batch=4)
    paper_objective(model, images, model(images)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_encode_gives_the_codes_of_forward(two_levels):
    images = images_of(two_levels.config)
    for ours, theirs in zip(two_levels.encode(images).levels, two_levels(images).codes.levels, strict=True):
        assert torch.equal(ours, theirs)


def test_decode_gives_the_rounded_mean_of_forward(two_levels):
    images = images_of(two_levels.config)
    output = two_levels(images)
    mean = two_levels.likelihood.mean(output.parameters)
    assert torch.equal(two_levels.decode(output.codes), mean.round().to(torch.uint8))


def test_training_moves_codebooks_and_eval_does_not(two_levels):
    before = two_levels.fingerprint()
    two_levels(images_of(two_levels.config))
    assert two_levels.fingerprint() == before
    two_levels.train()(images_of(two_levels.config))
    assert two_levels.fingerprint() != before


def test_finer_codes_depend_on_coarser_ones_and_never_the_other_way(two_levels):
    """Algorithm 1: a finer level is quantized given the decoding of all coarser codes."""
    images = images_of(two_levels.config, batch=8)
    coarse, fine = two_levels.encode(images).levels
    with torch.no_grad():
        two_levels.levels[0].quantizer.state.weight += 5 * torch.randn_like(two_levels.levels[0].quantizer.state.weight)
    _, fine_of_others = two_levels.encode(images).levels
    assert not torch.equal(fine_of_others, fine)

    two_levels = trained(two_levels.config)
    with torch.no_grad():
        two_levels.levels[1].quantizer.state.weight += 5
        for parameter in two_levels.levels[1].projection.parameters():
            parameter.zero_()
    coarse_again, fine_again = two_levels.encode(images).levels
    assert torch.equal(coarse_again, coarse)
    assert not torch.equal(fine_again, fine)


def test_level_alone_decodes_from_its_own_codes_only(two_levels):
    codes = two_levels.encode(images_of(two_levels.config))
    alone = two_levels.decode(codes, levels=[0])
    other_fine = Codes((codes.levels[0], (codes.levels[1] + 1) % 16), codes.codebook_sizes)
    other_coarse = Codes(((codes.levels[0] + 1) % 8, codes.levels[1]), codes.codebook_sizes)
    assert not torch.equal(alone, two_levels.decode(codes))
    assert torch.equal(alone, two_levels.decode(other_fine, levels=[0]))
    assert not torch.equal(alone, two_levels.decode(other_coarse, levels=[0]))
    assert torch.equal(two_levels.decode(codes, levels=[1, 0]), two_levels.decode(codes))


@pytest.mark.parametrize("levels", [[2], [-1], [0, 5]])
def test_levels_that_do_not_exist_are_refused(two_levels, levels):
    codes = two_levels.encode(images_of(two_levels.config))
    with pytest.raises(ValueError, match=r"levels must lie in \[0, 2\)"):
        two_levels.decode(codes, levels=levels)


@pytest.mark.parametrize("quantizer", ["depthwise", "shared", "residual", "scalar", "binary"])
def test_prefix_of_the_codebooks_decodes_from_its_own_codes_only(quantizer):
    model = trained(replace(TINY, quantizer=quantizer, codebook_size=16))
    codes = model.encode(images_of(model.config))
    first, second = codes.levels[0][:, :1], codes.levels[0][:, 1:]
    other_second = Codes((torch.cat([first, (second + 1) % 16], 1),), codes.codebook_sizes)
    alone = model.decode(codes, num_codebooks=1)
    assert torch.equal(alone, model.decode(other_second, num_codebooks=1))
    assert not torch.equal(alone, model.decode(codes))
    assert torch.equal(model.decode(codes, num_codebooks=2), model.decode(codes))


@pytest.mark.parametrize("num_codebooks", [0, 3])
def test_numbers_of_codebooks_that_do_not_exist_are_refused(two_levels, num_codebooks):
    codes = two_levels.encode(images_of(two_levels.config))
    with pytest.raises(ValueError, match=rf"num_codebooks must lie in \[1, 2\]; got {num_codebooks}"):
        two_levels.decode(codes, num_codebooks=num_codebooks)


def test_levels_may_be_anything_that_gives_them(two_levels):
    codes = two_levels.encode(images_of(two_levels.config))
    for levels in ([0], (0, 0), {0}, iter([0]), range(1)):
        assert torch.equal(two_levels.decode(codes, levels=levels), two_levels.decode(codes, levels=[0]))
    assert torch.equal(two_levels.decode(codes, levels=iter([1, 0])), two_levels.decode(codes))


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ({"levels": 0}, r"levels must be several whole numbers; got 0; pass \[0\] for a single one"),
        ({"levels": [0.5]}, "levels must be an integer; got 0.5"),
        ({"levels": [2]}, r"levels must lie in \[0, 2\); got \[2\]"),
        ({"num_codebooks": 1.5}, "num_codebooks must be an integer; got 1.5"),
    ],
)
def test_prefixes_of_another_kind_are_named(two_levels, prefix, message):
    codes = two_levels.encode(images_of(two_levels.config))
    with pytest.raises(ValueError, match=message):
        two_levels.decode(codes, **prefix)


@pytest.mark.parametrize("quantizer", ["depthwise", "shared", "residual", "scalar", "binary"])
def test_dropout_trains_on_what_prefixes_decode_to(quantizer):
    model = trained(replace(TINY, quantizer=quantizer, codebook_size=(8, 16)))
    images, config = images_of(model.config, batch=32), model.config
    model.train()
    for level in model.levels:
        level.quantizer.eval()  # so that codebooks stay
    model.level_dropout = model.codebook_dropout = 0.5
    parameters = model(images).parameters
    model.eval()
    codes, shown = model.encode(images), model.likelihood.mean(parameters).round().to(torch.uint8)
    prefixes = {
        (levels, codebooks): model.decode(codes, levels=range(levels), num_codebooks=codebooks)
        for levels in (1, 2)
        for codebooks in range(1, config.num_codebooks + 1)
    }
    found = [
        {prefix for prefix, decoded in prefixes.items() if (decoded[i].int() - shown[i]).abs().max() <= 1}
        for i in range(len(images))
    ]
    assert all(found)
    assert set.union(*found) == set(prefixes)


def test_dropout_trains_in_half_precision():
    model = DQAE(replace(TINY, quantizer="residual")).bfloat16()
    model.codebook_dropout = 0.5
    output = model(images_of(TINY))
    assert output.parameters.dtype == torch.bfloat16
    output.parameters.float().sum().backward()


def test_new_decoder_has_no_lattice():
    torch.manual_seed(0)
    made = Upsample(3, 2, num_residual_blocks=0)(torch.randn(1, 3, 5, 4))
    assert torch.equal(made, made[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_codes_of_another_model_are_refused(two_levels):
    codes = trained(replace(TINY, codebook_size=(8, 32))).encode(images_of(TINY))
    with pytest.raises(ValueError, match="must have this model's codebook sizes"):
        two_levels.decode(codes)


def test_codes_of_another_rank_are_refused(two_levels):
    coarse, fine = two_levels.encode(images_of(two_levels.config)).levels
    sequences = Codes((coarse.flatten(2), fine.flatten(2)), two_levels.codebook_sizes)
    with pytest.raises(ValueError, match=r"codes must be maps \(B, M, H, W\) for this model; got levels of shape"):
        two_levels.decode(sequences)


def test_codes_on_grids_that_do_not_fit_are_refused(two_levels):
    coarse, fine = two_levels.encode(images_of(two_levels.config)).levels
    codes = Codes((coarse, fine[..., :3]), two_levels.codebook_sizes)
    with pytest.raises(ValueError, match=r"codes of level 1 must lie on a grid of \(4, 4\).*got \(4, 3\)"):
        two_levels.decode(codes)


def test_without_a_quantizer_there_are_no_codes():
    model = DQAE(replace(TINY, quantizer="none"))
    output = model(images_of(TINY))
    assert output.codes is None
    assert [level.codebook_sizes for level in output.levels] == [()] * len(model.levels)
    with pytest.raises(ValueError, match="must have codebooks for codes to exist; got 'none', which has none; train"):
        model.encode(images_of(TINY))


def test_memory_format_of_images_does_not_matter(two_levels):
    images = images_of(two_levels.config)
    other = images.contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(two_levels.encode(images).levels, two_levels.encode(other).levels, strict=True):
        assert torch.equal(ours, theirs)


def test_same_seed_same_weights():
    def fingerprint(seed):
        torch.manual_seed(seed)
        return DQAE(TINY).fingerprint()

    assert fingerprint(0) == fingerprint(0) != fingerprint(1)


def test_fingerprint_is_of_the_weights_alone():
    prints = {}
    for seed, decay in ((0, 0.9), (0, 0.99), (1, 0.9)):
        torch.manual_seed(seed)
        prints[seed, decay] = DQAE(replace(TINY, decay=decay)).fingerprint()
    assert prints[0, 0.9] == prints[0, 0.99] != prints[1, 0.9]


def test_autocast_keeps_codes_decoding_to_what_forward_returned(two_levels):
    images = images_of(two_levels.config)
    with torch.autocast("cpu", torch.bfloat16):
        output = two_levels(images)
    for level, out in zip(two_levels.levels, output.levels, strict=True):
        assert torch.equal(level.quantizer.decode(out.codes).to(out.quantized.dtype), out.quantized)


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [("tiny", 1e4, 5e4), ("small", 0.7e6, 1.5e6), ("paper", 20e6, 26e6)],  # the paper states 22M (Table 1)
)
def test_presets_have_the_parameters_they_promise(preset, low, high):
    with torch.device("meta"):
        model = DQAE(PRESETS[preset])
    assert low <= sum(weight.numel() for weight in model.parameters()) <= high


def test_small_preset_codes_a_cifar_image_as_documented():
    config = PRESETS["small"]
    codes = DQAE(config).eval().encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert codes.levels[0].shape == (1, 5, 8, 8)
    assert codes.num_bits() == 64 * 5 * 7


def test_paper_preset_is_the_papers():
    config = PRESETS["paper"]
    assert (config.level_sizes, config.num_codebooks, config.codebook_dim) == ((256, 128), 5, 64)
    assert config.channels == (256, 256)
    assert config.num_residual_blocks == 4
    assert config.likelihood == "logistic_mixture"


def test_deep_hierarchy_halves_the_grid_at_each_level():
    config = replace(TINY, codebook_size=(4, 4, 4, 4))
    codes = trained(config, size=32, steps=1).encode(images_of(config, size=32))
    sides = [maps.shape[-1] for maps in codes.levels]
    assert sides == [1, 2, 4, 8]
    assert all(fine == 2 * coarse for coarse, fine in pairwise(sides))


def test_default_configuration_is_the_small_preset():
    assert DQAEConfig() == PRESETS["small"]


@pytest.fixture
def default_bfloat16():
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def test_codes_and_bits_do_not_depend_on_the_default_dtype(default_bfloat16):
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    model = DQAE(replace(PRESETS["tiny"], likelihood="logistic_mixture", horizon=2)).eval()
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)

    def measured() -> tuple:
        codes, generator = model.encode(images), torch.Generator().manual_seed(0)
        nll_nats = model.causal_head.nll_nats(images, torch.ones(4, 8, 16, 16, dtype=torch.float32))
        return (*codes.levels, model.decode(codes), model.sample(codes, generator), nll_nats)

    expected = measured()
    torch.set_default_dtype(torch.bfloat16)
    assert all(ours.dtype == theirs.dtype for ours, theirs in zip(measured(), expected, strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(measured(), expected, strict=True))
