"""Files of images: what is told before the streams, and how what is damaged is found out.

One image, all numbers little-endian, whole numbers of unknown size as varints (7 bits a byte, low ones first):

    "DQ"   format and kind (1 byte)   model id (4)   height, width (varints)   CRC-32 (4)   stream

at most 17 bytes before the stream. The CRC-32 is of the header before it and of the codes. A lossless file goes on in
the same stream, and ends with the CRC-32 of the pixels. An archive has, behind the model id, the number of images,
their names (compressed by zlib), and chunks of images of one size: how many, their height and width and CRC-32
as above, the length of the stream, the stream, and the CRC-32 of the pixels.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from depthq.codes import Codes

MAGIC = b"DQ"
FORMAT_VERSION = 3
_LOSSLESS, _ARCHIVE = 1, 2
_MODEL_ID_BYTES = 4
_PIXELS_PER_BYTE = 1024
"""A stream says at least a bit about 128 pixels (padded with zeros if need be): a damaged size asks for no more memory
than the file is worth."""
LARGEST_SIDE = 1 << 20
"""Pixels; a file that tells of more is damaged."""
NAME_BYTES = 4096


class FileError(ValueError):
    """Bytes are no whole file of this model."""


@dataclass(frozen=True)
class Chunk:
    """A stream of images of one size."""

    count: int
    height: int
    width: int
    codes_crc: int
    stream: bytes
    pixels_crc: int | None
    """None in a lossy file."""


@dataclass(frozen=True)
class Container:
    """All that a file says."""

    model_id: bytes
    is_lossless: bool
    chunks: Sequence[Chunk]
    names: Sequence[str] | None
    """Of all images in the order of the chunks; None in a file of one image, which has none."""

    @property
    def is_numbered(self) -> bool:
        """Whether the names are `numbers`, and need not be told."""
        return self.names is not None and list(self.names) == numbers(len(self.names))


def numbers(count: int) -> list[str]:
    """Names of images without names: 00000000 and on."""
    return [f"{number:08d}" for number in range(count)]


def to_bytes(container: Container) -> bytes:
    """The file."""
    is_archive = container.names is not None
    kind = FORMAT_VERSION << 4 | _ARCHIVE * is_archive | _LOSSLESS * container.is_lossless
    parts = [MAGIC, bytes([kind]), container.model_id]
    if container.names is not None:
        names = b"" if container.is_numbered else zlib.compress("\0".join(container.names).encode(), 9)
        parts += [_varint(len(container.names)), _varint(len(names)), names]
    for chunk in container.chunks:
        stream = chunk.stream + bytes(max(0, _pixels(chunk) // _PIXELS_PER_BYTE - len(chunk.stream)))
        parts += [_varint(chunk.count)] if is_archive else []
        parts += [_varint(chunk.height), _varint(chunk.width)]
        parts += [struct.pack("<I", chunk.codes_crc)]
        parts += [_varint(len(stream))] if is_archive else []
        parts += [stream]
        parts += [] if chunk.pixels_crc is None else [struct.pack("<I", chunk.pixels_crc)]
    return b"".join(parts)


def from_bytes(content: bytes, model_id: bytes) -> Container:
    """What a file says.

    Args:
        content: The file.
        model_id: That of the model and prior that are to decode it.

    Raises:
        FileError: If it is no such file, of an earlier or a later format, of another model, or damaged.
    """
    reader = _Reader(content)
    if reader.take(2) != MAGIC:
        raise FileError("data must be a file of depthq compress; got something else; check the path")
    kind = reader.take(1)[0]
    version = kind >> 4
    if version != FORMAT_VERSION:
        is_newer = version > FORMAT_VERSION
        remedy = "update depthq" if is_newer else "decompress it with the version of depthq that wrote it"
        raise FileError(f"data must be of format {FORMAT_VERSION}; got {version}; {remedy}")
    if kind & 0b1100:
        raise FileError("data must be a whole file; got a damaged header; copy it again")
    maker, is_lossless = reader.take(_MODEL_ID_BYTES), bool(kind & _LOSSLESS)
    if maker != model_id:
        raise FileError(
            f"data must be of this model and prior ({model_id.hex()}); got a file of another ({maker.hex()}); "
            "decompress it with the run that made it, its prior included"
        )
    if not kind & _ARCHIVE:
        return Container(maker, is_lossless, [reader.only_chunk(is_lossless)], None)
    count = reader.varint()
    packed = reader.take(reader.varint())
    chunks = list(reader.chunks(count, is_lossless))  # first, as they say whether there can be so many
    return Container(maker, is_lossless, chunks, _names(packed, count) if packed else numbers(count))


def codes_crc(told: tuple[bytes, int, int, int], codes: Codes) -> int:
    """CRC-32 of what a file says of a chunk (model id, count, height, width) and of its codes."""
    model_id, *numbers = told
    crc = zlib.crc32(struct.pack("<3I", *numbers), zlib.crc32(model_id))
    for level in codes.levels:
        crc = zlib.crc32(level.to(torch.int32).contiguous().numpy().astype("<i4").tobytes(), crc)
    return crc


def pixels_crc(images: Tensor) -> int:
    """CRC-32 of images uint8 (B, C, H, W)."""
    return zlib.crc32(images.contiguous().numpy().tobytes())


def _pixels(chunk: Chunk) -> int:
    return chunk.count * chunk.height * chunk.width


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _names(packed: bytes, count: int) -> list[str]:
    """What `to_bytes` packed; never more than names of the longest kind can be."""
    try:
        names = zlib.decompressobj().decompress(packed, count * (NAME_BYTES + 1)).decode().split("\0")
    except (zlib.error, UnicodeDecodeError) as error:
        raise FileError("data must be a whole file; got damaged names; copy it again") from error
    if len(names) != count:
        raise FileError(f"data must be a whole file; got {len(names)} names for {count} images; copy it again")
    return names


class _Reader:
    """Reads a file from the front; what is missing is an error."""

    def __init__(self, content: bytes):
        self.content = content
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > len(self.content) - self.at:
            raise FileError("data must be a whole file; got one that is cut off; copy it again")
        self.at += count
        return self.content[self.at - count : self.at]

    def varint(self) -> int:
        number = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise FileError("data must be a whole file; got a number that is too large; copy it again")

    def only_chunk(self, is_lossless: bool) -> Chunk:
        height, width, crc = self._numbers()
        rest = len(self.content) - self.at - 4 * is_lossless
        return self._chunk(1, height, width, crc, max(rest, 0), is_lossless)

    def chunks(self, count: int, is_lossless: bool) -> Iterator[Chunk]:
        """Of `count` images in all, up to the file's end."""
        left = count
        while left:
            of_chunk = self.varint()
            if not 0 < of_chunk <= left:
                raise FileError(
                    f"data must be a whole file; got {of_chunk} images where {left} are left; copy it again"
                )
            numbers = self._numbers()
            yield self._chunk(of_chunk, *numbers, self.varint(), is_lossless)
            left -= of_chunk
        if self.at != len(self.content):
            raise FileError("data must be a whole file; got more behind its end; copy it again")

    def _numbers(self) -> tuple[int, int, int]:
        height, width = self.varint(), self.varint()
        return height, width, struct.unpack("<I", self.take(4))[0]

    def _chunk(self, count: int, height: int, width: int, crc: int, size: int, is_lossless: bool) -> Chunk:
        if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
            raise FileError(f"data must be a whole file; got an image of {height}x{width}; copy it again")
        if count * height * width > _PIXELS_PER_BYTE * (size + 1):
            raise FileError(
                f"data must be a whole file; got {count} images of {height}x{width} in {size} bytes; copy it again"
            )
        stream = self.take(size)
        pixels = struct.unpack("<I", self.take(4))[0] if is_lossless else None
        return Chunk(count, height, width, crc, stream, pixels)
