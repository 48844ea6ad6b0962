import pytest
import torch

from depthq.pixels import denormalize, normalize


def gray_ramp(channels: int) -> torch.Tensor:
    """All 256 values in every channel: uint8 (1, C, 16, 16)."""
    return torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, channels, 1, 1)


def test_black_and_white_rgb_are_known_numbers():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    black, white = normalize(images)[:, :, 0, 0]
    torch.testing.assert_close(black, torch.tensor([-2.117904, -2.035714, -1.804444]))  # -mean / std
    torch.testing.assert_close(white, torch.tensor([2.248908, 2.428571, 2.640000]))  # (1 - mean) / std


def test_gray_uses_the_averages_over_channels():
    black = normalize(torch.zeros(1, 1, 1, 1, dtype=torch.uint8))
    assert black.item() == pytest.approx(-0.449 / 0.226)


@pytest.mark.parametrize("channels", [1, 3])
def test_denormalize_inverts_normalize(channels):
    images = gray_ramp(channels)
    normalized = normalize(images)
    assert normalized.dtype == torch.float32
    torch.testing.assert_close(denormalize(normalized), images.float(), atol=1e-4, rtol=0)


def test_denormalize_does_not_clamp():
    beyond = denormalize(torch.tensor([-10.0, 10.0]).view(2, 1, 1, 1)).flatten()
    torch.testing.assert_close(beyond, 255 * torch.tensor([0.449 - 2.26, 0.449 + 2.26]))


def test_denormalize_gives_float32_from_any_precision():
    assert denormalize(torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_channels_last_is_kept():
    images = gray_ramp(3).contiguous(memory_format=torch.channels_last)
    normalized = normalize(images)
    assert normalized.is_contiguous(memory_format=torch.channels_last)
    assert denormalize(normalized).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 2, 2), r"images must be uint8.*got torch\.float32"),
        (
            torch.zeros(1, 2, 2, 2, dtype=torch.uint8),
            r"images must be \(B, C, H, W\), C = 1 \(gray\) or 3 \(RGB\); got shape \(1, 2, 2, 2\); add the",
        ),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), r"images must be \(B, C, H, W\).*got shape \(3, 32, 32\)"),
    ],
)
def test_bad_images_are_named(images, message):
    with pytest.raises(ValueError, match=message):
        normalize(images)


def test_denormalize_needs_gray_or_rgb():
    with pytest.raises(ValueError, match=r"normalized must be \(B, C, H, W\), C = 1 .*got shape \(1, 4, 2, 2\)"):
        denormalize(torch.zeros(1, 4, 2, 2))
