import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

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


def png(width, height, bits, colour_type, rows):
    """A PNG file of a kind that Pillow does not write."""

    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_of_sixteen_bits(colour_type, num_channels):
    """A pixel of 16 bits in each channel."""
    return png(1, 1, 16, colour_type, b"\0" + b"\x80\x01" * num_channels)


def tiff_of_sixteen_bits(photometric, num_channels):
    """A pixel as a TIFF file without compression."""
    tags = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, num_channels, 122),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 130),
        (277, 3, 1, num_channels),
        (278, 3, 1, 1),
        (279, 4, 1, 2 * num_channels),
    ]
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    bits = struct.pack("<4H", *[16] * 4)
    return header.ljust(122, b"\0") + bits + struct.pack("<4H", *[0x8001] * 4)


@pytest.mark.parametrize(
    "content",
    [
        png_of_sixteen_bits(2, 3),
        png_of_sixteen_bits(4, 2),
        png_of_sixteen_bits(6, 4),
        tiff_of_sixteen_bits(2, 3),
        tiff_of_sixteen_bits(5, 4),
        b"P6 1 1 65535\n" + b"\x80\x01" * 3,
        b"P6 1 1 1023\n" + b"\x02\x01" * 3,
        b"P3 1 1 65535\n32769 32769 32769\n",
    ],
    ids=["PNG RGB", "PNG LA", "PNG RGBA", "TIFF RGB", "TIFF CMYK", "PPM", "PPM of 10 bits", "PPM as text"],
)
def test_more_than_eight_bits_raise_whatever_the_mode(content):
    message = r"must have 8 bits per channel, .*; got a\.png of mode \w+ with more than 8; convert it to 8-bit"
    with pytest.raises(DataError, match=message):
        read(content)
    with pytest.raises(DataError, match=message):
        read_shape(EncodedImage("a.png", content))


@pytest.mark.parametrize("no_jp2", [False, True])
def test_more_than_eight_bits_in_jpeg_2000_raise(encode, tmp_path, no_jp2):
    content = encode(NOISE, "JPEG2000", no_jp2=no_jp2)
    assert read(content).shape == (3, 16, 24)
    deep = bytearray(content)
    first_component = content.index(b"\xff\x4f\xff\x51") + 42
    deep[first_component : first_component + 9 : 3] = b"\x0f" * 3  # bits less one
    (tmp_path / "a.jp2").write_bytes(deep)
    for each in (bytes(deep), str(tmp_path / "a.jp2")):
        with pytest.raises(DataError, match="mode RGB with more than 8"):
            read(each)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_more_than_eight_bits_in_avif_raise(encode):
    content = encode(NOISE, "AVIF")
    assert read(content).shape == (3, 16, 24)
    deep = bytearray(content.replace(b"pixi\0\0\0\0\3\x08\x08\x08", b"pixi\0\0\0\0\3\x0a\x0a\x0a"))
    deep[content.index(b"av1C") + 6] |= 0x40
    with pytest.raises(DataError, match="mode RGB with more than 8"):
        read(bytes(deep))


def test_a_large_image_is_none_that_is_damaged():
    shape = read_shape(
        EncodedImage("a.png", png(20_000, 50_000, 8, 0, b""))
    )  # a billion pixels, Pillow's limit is 0.18
    assert shape == (1, 50_000, 20_000)
    message = r"must have at most 1073741824 pixels, lest .*; got a\.png of more; cut it into pieces, or in Python set"
    for read_it in (read_shape, lambda encoded: read_pixels(encoded, 1)):
        with pytest.raises(DataError, match=message):
            read_it(EncodedImage("a.png", png(32_768, 32_769, 8, 0, b"")))


def test_the_limit_that_a_user_sets_is_kept(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    assert read_shape(EncodedImage("a.png", png(4, 4, 8, 0, b""))) == (1, 4, 4)
    with pytest.raises(DataError, match="must have at most 16 pixels"):
        read_shape(EncodedImage("a.png", png(4, 5, 8, 0, b"")))


def test_a_bmp_of_five_six_and_five_bits_is_read():
    masks = struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    content = b"BM" + struct.pack("<IHHI", 70, 0, 0, 66) + header + masks + struct.pack("<HH", 0xF81F, 0)
    assert read(content).ravel().tolist() == [255, 0, 255]


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
