"""From images to bytes and back: on this machine, on one that computes a little otherwise, and from damaged bytes."""

import copy
import math
import random
from dataclasses import replace

import pytest
import torch

import depthq
from depthq.coding import Archive, FileError, integers, streams
from depthq.coding.integers import Grid
from depthq.models import DQAE, PRESETS
from depthq.pixels import pad_to_multiple
from depthq.priors import TransformerPrior
from tests.coding.conftest import KINDS, make_model, smooth_images


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (7, 21)])
def test_lossless_gives_every_pixel_back(kind, height, width):
    model = make_model(kind)
    images = smooth_images(3, model.config.image_channels, height, width)
    data = depthq.compress(model, images, lossless=True)
    assert torch.equal(depthq.decompress(model, data), images)


@pytest.mark.parametrize("with_prior", [False, True])
def test_lossy_file_decodes_to_what_the_codes_say(model, prior, with_prior):
    images, prior = smooth_images(2, 3, 16), prior if with_prior else None
    data = depthq.compress(model, images, prior)
    assert torch.equal(depthq.decompress(model, data, prior), model.decode(model.encode(images)))


def test_header_of_one_image_has_fifteen_bytes_and_a_lossless_file_starts_as_the_lossy_one(model):
    image = smooth_images(1, 3, 16)
    lossy, lossless = (depthq.compress(model, image, lossless=lossless) for lossless in (False, True))
    assert len(lossy) <= 15 + 4 * math.ceil(model.encode(image).num_bits() / 32 + 1)
    header = 2 + 1 + 4 + 1 + 1 + 4
    assert lossless[:2] == lossy[:2] == b"DQ"
    assert lossless[3:9] == lossy[3:9]
    assert lossless[header : len(lossy) - 8] == lossy[header:-8]  # the coder's last words are still open


def test_preview_shows_what_the_codes_say_and_does_not_read_on(model):
    images = smooth_images(2, 3, 16)
    archive = Archive(model)
    data = archive.compress([images], None, lossless=True)
    broken = data[:-4] + bytes(4)  # the checksum of the pixels
    shown = torch.stack([image for _, image in archive.decompress(broken, preview=True)])
    assert torch.equal(shown, model.decode(model.encode(images)))
    with pytest.raises(FileError, match="the pixels do not"):
        list(archive.decompress(broken))


def test_archive_keeps_names_and_sizes(model, prior):
    archive, batches = Archive(model, prior), [smooth_images(3, 3, 16), smooth_images(2, 3, 9, 30)]
    names = ["a/one.png", "two.jpg", "drei ü.png", "x", "y"]
    for lossless in (False, True):
        found = dict(archive.decompress(archive.compress(batches, names, lossless=lossless)))
        assert list(found) == names
        for name, image in zip(names, [*batches[0], *batches[1]], strict=True):
            assert found[name].shape == image.shape
            assert torch.equal(found[name], image) == lossless
            padded = pad_to_multiple(image[None], model.config.image_multiple)
            if not lossless and name in ("x", "y"):  # larger than those that the prior was made for
                shown = model.reconstruct(padded)[0, :, : image.shape[1], : image.shape[2]]
                assert int((found[name].int() - shown.int()).abs().max()) <= 1


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_single_images_decode_alike(model, prior, batch_size):
    images = smooth_images(64, 3, 16)[:batch_size]
    data = depthq.compress(model, images, prior, lossless=True)
    assert torch.equal(depthq.decompress(model, data, prior), images)


def test_number_of_threads_changes_nothing(model, prior, set_num_threads):
    images, written = smooth_images(8, 3, 16), {}
    for threads in (1, 2):
        set_num_threads(threads)
        written[threads] = depthq.compress(model, images, prior, lossless=True)
    for threads in (1, 2):
        set_num_threads(threads)
        assert torch.equal(depthq.decompress(model, written[3 - threads], prior), images)


@pytest.mark.parametrize("kind", ["causal", "mixture", "categorical"])
def test_a_machine_with_other_last_bits_decodes_every_file(kind, monkeypatch):
    model = make_model(kind)
    torch.manual_seed(1)
    prior = TransformerPrior(model.codebook_sizes, ((2, 2), (4, 4)), width=8, num_layers=1, num_heads=2)
    files = {}
    for seed in range(8):
        images = smooth_images(4, 3, 16, seed=seed)
        files[depthq.compress(model, images, prior, lossless=True)] = images
    noise_every_output(monkeypatch, 1e-11)
    for data, images in files.items():
        assert torch.equal(depthq.decompress(model, data, prior), images)


@pytest.mark.parametrize("kind", ["causal", "mixture"])
def test_an_image_that_no_one_grid_fits_has_a_grid_for_each_block(kind, monkeypatch):
    model, image = make_model(kind), smooth_images(1, 3, 48)
    monkeypatch.setattr(integers, "_NOISE", 2e-7)  # so that thousands of pixels are as hard as millions are
    whole = streams.StreamCoder(model, None)
    with pytest.raises(ValueError, match="keep clear of the boundaries of some grid"):
        whole.encode(model.encode(image), image)
    monkeypatch.setattr(streams, "_BLOCK_PIXELS", 64)
    monkeypatch.setattr(streams, "_CHUNK_PIXELS", 32)
    data = depthq.compress(model, image, lossless=True)
    used = []
    monkeypatch.setattr(streams, "Grid", lambda offset, careful: used.append(offset) or Grid(offset, careful=careful))
    noise_every_output(monkeypatch, 5e-8)
    assert torch.equal(depthq.decompress(model, data), image)
    assert len(set(used)) > 1


def test_a_machine_that_computes_in_float32_is_told_apart(model, monkeypatch):
    data = depthq.compress(model, smooth_images(8, 3, 16), lossless=True)
    noise_every_output(monkeypatch, 1e-6)
    with pytest.raises(FileError, match="this machine computes otherwise"):
        depthq.decompress(model, data)


def noise_every_output(monkeypatch, relative):
    """What networks say, times 1 + noise."""
    generator = torch.Generator().manual_seed(0)

    def noised(outputs):
        noise = torch.empty_like(outputs).uniform_(-1, 1, generator=generator)
        return outputs * (1 + relative * noise)

    make = streams.sub_pixels
    monkeypatch.setattr(
        streams, "sub_pixels", lambda likelihood, outputs, grid: make(likelihood, noised(outputs), grid)
    )
    of_codes = streams.code_frequencies
    monkeypatch.setattr(streams, "code_frequencies", lambda logits, grid: of_codes(noised(logits), grid))


def test_file_has_the_bits_that_were_estimated(model, prior):
    images = smooth_images(32, 3, 32)
    data = depthq.compress(model, images, prior, lossless=True)
    with torch.no_grad():
        pixels = model.causal_head.nll_nats(images, model(images).features).double().sum()
        codes = prior.double().nll_nats(model.encode(images)).sum()
    prior.float()
    estimate = (pixels + codes).item() / math.log(2)
    assert 8 * len(data) == pytest.approx(estimate, rel=0.005)


def test_mutations_give_an_error_or_the_very_image(model, prior):
    images, draw = smooth_images(1, 3, 16), random.Random(0)
    single = depthq.compress(model, images, prior, lossless=True)
    archive = depthq.compress(model, smooth_images(3, 3, 16), prior)
    expected = {single: images, archive: depthq.decompress(model, archive, prior)}
    outcomes = {"error": 0, "same": 0}
    for number in range(200):
        data = (single, archive)[number % 2]
        try:
            decoded = depthq.decompress(model, mutated(data, draw), prior)
        except FileError:
            outcomes["error"] += 1
        else:
            outcomes["same"] += 1
            assert torch.equal(decoded, expected[data])
    assert outcomes["error"] > 150


def mutated(data: bytes, draw: random.Random) -> bytes:
    content = bytearray(data)
    place = draw.randrange(min(len(content), draw.choice([24, len(content)])))
    kind = draw.randrange(4)
    if kind == 0:
        content[place] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del content[place:]
    elif kind == 2:
        content[place : place + draw.randrange(1, 9)] = draw.randbytes(4)
    else:
        content += draw.randbytes(draw.randrange(1, 9))
    return bytes(content)


def test_huge_sizes_are_refused_before_memory_is_taken(model):
    data = bytearray(depthq.compress(model, smooth_images(1, 3, 16)))
    data[7:9] = b"\xff\xff\x01\xff\xff\x01"  # 32767 x 32767
    with pytest.raises(FileError, match=r"got 1 images of 32767x32767 in \d+ bytes"):
        depthq.decompress(model, bytes(data))


def test_a_long_strip_comes_back_and_a_longer_one_than_files_hold_is_refused_first(model):
    strip = smooth_images(1, 3, 8, 32776)
    assert torch.equal(depthq.decompress(model, depthq.compress(model, strip)), model.decode(model.encode(strip)))
    too_long = torch.zeros(1, 3, 1, 2**20 + 1, dtype=torch.uint8)
    with pytest.raises(ValueError, match="must have at most 1048576 pixels a side; got 1x1048577; cut them up"):
        Archive(model).compress([strip, too_long], None)


def test_the_largest_codebook_comes_back_and_a_larger_one_is_refused_first():
    models = []
    for size in (2**20, 2**21):
        config = depthq.DQAEConfig(channels=(4, 8), quantizer="binary", num_codebooks=1, codebook_size=size)
        models.append(depthq.DQAE(config).eval())
    largest, larger = models
    image = smooth_images(1, 3, 4)
    assert torch.equal(depthq.decompress(largest, depthq.compress(largest, image)), largest.reconstruct(image))
    with pytest.raises(
        ValueError, match="must have at most 1048576 codes each in a file; got 2097152; keep such codes"
    ):
        Archive(larger)


def test_what_is_no_file_of_this_model_is_named(model, prior):
    data = depthq.compress(model, smooth_images(1, 3, 16))
    for broken, message in [
        (b"", "cut off"),
        (b"PNG" + data, "got something else"),
        (data[:2] + bytes([data[2] + (2 << 4)]) + data[3:], "must be of format 3; got 5; update depthq"),
        (data[:2] + bytes([data[2] - (1 << 4)]) + data[3:], "got 2; decompress it with the version of depthq that"),
        (data[:10], "cut off"),
    ]:
        with pytest.raises(FileError, match=message):
            depthq.decompress(model, broken)
    other = make_model("causal", seed=5)
    with pytest.raises(FileError, match="got a file of another"):
        depthq.decompress(other, data)
    with pytest.raises(FileError, match="got a file of another"):
        depthq.decompress(model, data, prior)


def test_bad_arguments_are_named(model):
    images = smooth_images(2, 3, 16)
    lossy = depthq.DQAE(depthq.DQAEConfig(channels=(4, 8), likelihood="l2")).eval()
    with pytest.raises(ValueError, match="lossless must be asked of a model whose likelihood"):
        depthq.compress(lossy, images, lossless=True)
    with pytest.raises(ValueError, match="images must have 3 channels"):
        depthq.compress(model, images[:, :1])
    for bad in (images.float(), images[0], images[:, :, :0]):
        with pytest.raises(ValueError, match="images must be uint8"):
            depthq.compress(model, bad)
    with pytest.raises(ValueError, match="with a name each"):
        Archive(model).compress([images], ["one"])
    with pytest.raises(ValueError, match="names must have at most"):
        Archive(model).compress([images], ["one", "t\0o"])
    with pytest.raises(ValueError, match="prior must be of the model's codebooks"):
        Archive(model, TransformerPrior(((3,),), ((2, 2),)))
    two_sizes = Archive(model).compress([images, smooth_images(1, 3, 8)], None)
    with pytest.raises(FileError, match="of one size"):
        depthq.decompress(model, two_sizes)


@pytest.mark.parametrize("sizes", [1, (1, 2)])
def test_codebooks_of_one_code_take_no_bits(sizes):
    model = DQAE(replace(PRESETS["tiny"], codebook_size=sizes, likelihood="logistic_mixture")).eval()
    images = smooth_images(3, 3, 16)
    data = depthq.compress(model, images, lossless=True)
    assert torch.equal(depthq.decompress(model, data), images)


def test_a_file_is_that_of_the_model_frozen_or_not(model):
    images, frozen = smooth_images(2, 3, 16), copy.deepcopy(model)
    for level in frozen.levels:
        level.quantizer.freeze()
    assert frozen.fingerprint() == model.fingerprint()
    data = depthq.compress(model, images)
    assert torch.equal(depthq.decompress(frozen, data), depthq.decompress(model, data))


def test_who_takes_images_one_by_one_has_all_threads(model, set_num_threads):
    set_num_threads(2)
    archive = Archive(model)
    data = archive.compress([smooth_images(1, 3, 8 * side) for side in range(1, 7)], None)
    assert [torch.get_num_threads() for _ in archive.decompress(data)] == [2] * 6
    first = archive.decompress(data)
    next(first)
    assert torch.get_num_threads() == 2
