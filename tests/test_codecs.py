"""What images take as PNG and JPEG, beside which codes stand."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from depthq.codecs import beside_codecs, encoded_bytes, jpeg_bytes_at
from depthq.data import open_whole_images
from depthq.pixels import psnr_db


@pytest.fixture(scope="module")
def photo():
    """uint8 (3, 96, 128) of a cat."""
    photos = open_whole_images("bundled", "test")
    names = [origin.id for origin in photos.origins(range(len(photos)))]
    return torch.tensor(photos[names.index("chelsea.png")])[:, 100:196, 100:228]


def as_jpeg(image, quality):
    """Bytes and PSNR by Pillow alone."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, optimize=True)
    decoded = np.asarray(Image.open(file)).astype(float)
    error = ((decoded - image.permute(1, 2, 0).numpy()) ** 2).mean()
    return len(file.getvalue()), 10 * np.log10(255**2 / error)


def test_a_png_is_what_pillow_writes(photo):
    file = io.BytesIO()
    Image.fromarray(photo.permute(1, 2, 0).numpy()).save(file, "PNG")
    assert encoded_bytes(photo, format="PNG") == len(file.getvalue())


@pytest.mark.parametrize("quality", [20, 60, 90])
def test_jpeg_of_a_quality_is_found_by_its_psnr(photo, quality):
    size, quality_db = as_jpeg(photo, quality)
    found, is_reached = jpeg_bytes_at(photo, quality_db)
    assert is_reached
    assert found == pytest.approx(size, rel=0.02)  # neighbouring qualities may reach the same PSNR


def test_between_two_qualities_bytes_are_linear(photo):
    (low, low_db), (high, high_db) = as_jpeg(photo, 70), as_jpeg(photo, 71)
    found, _ = jpeg_bytes_at(photo, (low_db + high_db) / 2)
    assert low <= found <= high


@pytest.mark.parametrize("quality_db", [1.0, 99.0])
def test_what_jpeg_does_not_reach_is_told(photo, quality_db):
    size, is_reached = jpeg_bytes_at(photo, quality_db)
    assert not is_reached
    assert size == as_jpeg(photo, 1 if quality_db < 10 else 100)[0]


def test_rates_are_over_all_pixels(photo):
    noisy = (photo.int() + torch.randint(-9, 10, photo.shape)).clamp(0, 255).to(torch.uint8)
    rates = beside_codecs([(photo[None], noisy[None]), (photo[None, :, :70], noisy[None, :, :70])])
    pngs = [encoded_bytes(image, format="PNG") for image in (photo, photo[:, :70])]
    assert rates.images == 2
    assert rates.png_bits_per_pixel == pytest.approx(8 * sum(pngs) / ((96 + 70) * 128))
    pairs = ((noisy, photo), (noisy[:, :70], photo[:, :70]))
    quality = [float(psnr_db(ours[None].float(), original[None].float())) for ours, original in pairs]
    assert rates.psnr_db == pytest.approx(sum(quality) / 2)
    assert rates.jpeg_reaches


def test_small_images_share_a_file(photo):
    tiles = torch.stack([photo[:, :32, column : column + 32] for column in range(0, 128, 32)])
    rates = beside_codecs([(tiles, tiles.clone())])
    strip = torch.cat(list(tiles), dim=1)
    assert rates.png_bits_per_pixel == 8 * encoded_bytes(strip, format="PNG") / (4 * 32 * 32)


@pytest.mark.parametrize(
    ("shape", "cuts"), [((1, 3, 66_000, 8), [33_000]), ((1, 3, 8, 66_000), []), ((64, 3, 1_100, 3), [35_200])]
)
def test_what_is_longer_than_a_jpeg_may_be_goes_into_several(shape, cuts):
    images = torch.arange(256, dtype=torch.uint8).repeat(-(-math.prod(shape) // 256))[: math.prod(shape)].view(shape)
    rates = beside_codecs([(images, images.clone())])
    whole = torch.cat(list(images), dim=1)
    pieces = whole.tensor_split(cuts, dim=1) if cuts else whole.tensor_split([33_000], dim=2)
    assert rates.images == len(images)
    png_bytes = sum(encoded_bytes(piece, format="PNG") for piece in pieces)
    assert rates.png_bits_per_pixel == pytest.approx(8 * png_bytes / images[:, 0].numel())


def test_gray_images_are_written_gray():
    gray = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(1, 5, 5)
    assert jpeg_bytes_at(gray, 30.0)[0] > 0


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="at least one image; got none"):
        beside_codecs([])
