import numpy as np
import pytest
from PIL import Image

from depthq.data import DataError
from depthq.data.reading import EncodedImage, read_pixels, read_shape

NOISE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def read(content, num_channels=3):
    return read_pixels(EncodedImage("a.png", content), num_channels)


def test_colour_pixels_come_channels_first(encode):
    np.testing.assert_array_equal(read(encode(NOISE)), NOISE.transpose(2, 0, 1))


def test_image_is_read_from_a_path_too(encode, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(NOISE))
    np.testing.assert_array_equal(read(str(tmp_path / "a.png")), NOISE.transpose(2, 0, 1))


def test_gray_image_is_one_channel_or_three_equal_ones(encode):
    gray = NOISE[..., 0]
    np.testing.assert_array_equal(read(encode(gray), num_channels=1), gray[None])
    np.testing.assert_array_equal(read(encode(gray), num_channels=3), np.stack([gray] * 3))


def test_one_bit_image_is_black_and_white(encode):
    picture = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert read(encode(picture), num_channels=1).tolist() == [[[0, 255]]]


def test_palette_becomes_rgb(encode):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1])
    assert read(encode(picture)).tolist() == [[[10, 40]], [[20, 50]], [[30, 60]]]


def test_cmyk_becomes_rgb(encode):
    picture = Image.new("CMYK", (1, 1), (255, 0, 0, 0))  # full cyan: no red
    assert read(encode(picture, "TIFF")).ravel().tolist() == [0, 255, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_alpha_is_dropped_without_loss(encode, mode):
    gray = Image.fromarray(NOISE[..., 0])
    picture = gray.convert(mode)
    num_channels = 1 if mode == "LA" else 3
    expected = np.stack([NOISE[..., 0]] * num_channels)
    np.testing.assert_array_equal(read(encode(picture), num_channels), expected)


def test_transparent_image_raises(encode):
    picture = Image.fromarray(NOISE).convert("RGBA")
    picture.putpixel((3, 2), (0, 0, 0, 7))
    with pytest.raises(DataError, match=r"must be opaque; got a\.png with alpha down to 7 of 255; flatten"):
        read(encode(picture))


def test_transparent_palette_entry_raises_where_it_is_used(encode):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    assert read(encode(picture, transparency=bytes([255, 255, 0]))).shape == (3, 1, 2)  # entry 2 is not used
    with pytest.raises(DataError, match="must be opaque"):
        read(encode(picture, transparency=bytes([255, 0])))


def test_sixteen_bit_image_raises(encode):
    with pytest.raises(DataError, match=r"must have 8 bits per channel.*a\.png of mode I;16; convert"):
        read(encode(NOISE[..., 0].astype(np.uint16)))


def test_colour_image_in_gray_set_raises(encode):
    with pytest.raises(DataError, match=r"gray set must be gray; got a\.png of mode RGB; convert"):
        read(encode(NOISE), num_channels=1)


def test_image_is_turned_upright_as_exif_says(encode):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn a quarter clockwise
    content = encode(NOISE, exif=exif)
    np.testing.assert_array_equal(read(content), np.rot90(NOISE, -1).transpose(2, 0, 1))
    assert read_shape(EncodedImage("a.png", content)) == (3, 24, 16)


def test_animation_gives_its_first_frame(encode):
    frames = [Image.new("L", (4, 4), value) for value in (50, 200)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.unique(read(content)).tolist() == [50]


@pytest.mark.parametrize(("pixels", "shape"), [(NOISE, (3, 16, 24)), (NOISE[..., 0], (1, 16, 24))])
def test_shape_is_read_from_the_header(encode, pixels, shape):
    content = encode(pixels)
    assert read_shape(EncodedImage("a.png", content[: len(content) // 2])) == shape


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_image_raises_and_is_named(encode, format, share):
    content = encode(NOISE, format)
    assert read(content).shape == (3, 16, 24)
    with pytest.raises(DataError, match=r"must be whole and readable; got a\.png \(.*replace or remove"):
        read(content[: int(share * len(content))])


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_other_bytes_raise(content):
    with pytest.raises(DataError, match=r"got a\.png \(of no known format\)"):
        read(content)


def test_missing_file_raises(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read(str(tmp_path / "gone.png"))
