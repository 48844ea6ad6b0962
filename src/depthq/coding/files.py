"""Images to files and back: `compress` and `decompress`."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from depthq.coding.coder import SymbolDecoder
from depthq.coding.container import (
    LARGEST_SIDE,
    NAME_BYTES,
    Chunk,
    Container,
    FileError,
    codes_crc,
    from_bytes,
    numbers,
    pixels_crc,
    to_bytes,
)
from depthq.coding.integers import LARGEST_CODEBOOK
from depthq.coding.streams import StreamCoder
from depthq.models import DQAE
from depthq.pixels import pad_to_multiple
from depthq.priors import CodePrior

In = TypeVar("In")
Out = TypeVar("Out")

_CHUNK_PIXELS = 64 * 1024
"""Pixels of a stream, 64 images of 32x32, which are decoded together."""


def compress(
    model: DQAE,
    images: Tensor,
    prior: CodePrior | None = None,
    lossless: bool = False,
) -> bytes:
    """One image or a batch as the bytes of a file, which decodes on any machine.

    Args:
        model: Makes the codes, and says what pixels are likely.
        images: uint8 (B, C, H, W) of any size up to 2^20 pixels a side; what the model's strides do not divide is
            padded by reflection.
        prior: Of the model's codes, which then cost less; None: all codes are alike.
        lossless: Keep every pixel; else the file holds the codes alone.

    Raises:
        ValueError: If the model cannot take the images, has a codebook of more than 2^20 codes, or lossless is asked of
            one whose likelihood is a density.

    Example:
        >>> data = compress(model, images, lossless=True)
        >>> torch.equal(decompress(model, data), images)
        True
    """
    return Archive(model, prior).compress([images], names=None, lossless=lossless)


def decompress(
    model: DQAE,
    data: bytes,
    prior: CodePrior | None = None,
) -> Tensor:
    """The images uint8 (B, C, H, W) of a file of `compress`.

    Args:
        model: The very model that made it.
        data: The file, of images of one size.
        prior: The very prior that made it, if there was one.

    Raises:
        FileError: If the file is damaged, of another model, or this machine computes too differently to decode it.
    """
    images = [image for _, image in Archive(model, prior).decompress(data)]
    if len({image.shape for image in images}) != 1:
        raise FileError(
            "data must hold images of one size to be a batch; got several; "
            "use depthq.coding.Archive(model, prior).decompress, which gives them one by one"
        )
    return torch.stack(images)


class Archive:
    """Writes and reads files of many images, of any sizes, with their names.

    Args:
        model: Of all files.
        prior: Of its codes; None: all codes are alike.

    Raises:
        ValueError: If a codebook has more than 2^20 codes, or the prior is of other codebooks than the model's.
    """

    def __init__(self, model: DQAE, prior: CodePrior | None = None):
        largest = max((size for level in model.codebook_sizes for size in level), default=0)
        if largest > LARGEST_CODEBOOK:
            raise ValueError(
                f"codebooks must have at most {LARGEST_CODEBOOK} codes each in a file; got {largest}; keep such codes "
                "with depthq encode, or train a model with several smaller codebooks"
            )
        if prior is not None and prior.codebook_sizes != model.codebook_sizes:
            raise ValueError(
                f"prior must be of the model's codebooks {model.codebook_sizes}; got {prior.codebook_sizes}; "
                "train one on this model's codes"
            )
        self.model = model
        self.model_id = _model_id(model, prior)
        self._coder = StreamCoder(model, prior)

    def compress(self, batches: Sequence[Tensor], names: Sequence[str] | None, *, lossless: bool = False) -> bytes:
        """The bytes of a file.

        Args:
            batches: Images uint8 (B, C, H, W), each batch of one size, up to 2^20 pixels a side.
            names: Of all images, in their order; None: numbers, and for a single image none.
            lossless: Keep every pixel.

        Raises:
            ValueError: As `compress`; or if there are no images, or names that are too long or not one per image.
        """
        count = sum(map(len, batches))
        if not count or (names is not None and len(names) != count):
            raise ValueError(f"images must be at least one, with a name each; got {count} and {names and len(names)}")
        if any("\0" in name or len(name.encode()) > NAME_BYTES for name in names or ()):
            raise ValueError(f"names must have at most {NAME_BYTES} bytes, none of them 0; shorten them")
        if lossless and not self._coder.likelihood.is_discrete:
            raise ValueError(
                f"lossless must be asked of a model whose likelihood gives 8-bit values probabilities; got "
                f"{self.model.config.likelihood!r}; train one with likelihood logistic_mixture or categorical"
            )
        pieces = [piece for batch in batches for piece in _pieces(batch)]
        chunks = list(_on_all_cores(lambda images: self._chunk(images, lossless), pieces))
        if names is None and count > 1:
            names = numbers(count)
        return to_bytes(Container(self.model_id, lossless, chunks, names))

    def decompress(self, data: bytes, *, preview: bool = False) -> Iterator[tuple[str | None, Tensor]]:
        """Name and image uint8 (C, H, W), one by one; the name of a file's only image may be None.

        Args:
            data: The file.
            preview: Show what the codes say, without reading on to the pixels of a lossless file.

        Raises:
            FileError: If the file is damaged, of another model, or this machine computes too differently to decode it;
                then nothing of the chunk where that is found is given.
        """
        container = from_bytes(data, self.model_id)
        names = iter(container.names if container.names is not None else [None])
        for images in _on_all_cores(lambda chunk: self._images(chunk, preview), container.chunks):
            for image in images:
                yield next(names), image

    def _chunk(self, images: Tensor, lossless: bool) -> Chunk:
        count, _, height, width = images.shape
        padded = pad_to_multiple(images.cpu(), self.model.config.image_multiple)
        codes = self.model.encode(padded.to(self.model.device)).to("cpu")
        stream = self._coder.encode(codes, images.cpu() if lossless else None)
        crc = codes_crc((self.model_id, count, height, width), codes)
        return Chunk(count, height, width, crc, stream, pixels_crc(images.cpu()) if lossless else None)

    def _images(self, chunk: Chunk, preview: bool) -> Tensor:
        """uint8 (B, C, H, W)."""
        multiple, num_levels = self.model.config.image_multiple, self.model.config.num_levels
        height, width = (-(-side // multiple) for side in (chunk.height, chunk.width))
        grids = [(height << level, width << level) for level in range(num_levels)]
        decoder = SymbolDecoder(chunk.stream)
        try:
            codes = self._coder.decode_codes(decoder, chunk.count, grids)
            if codes_crc((self.model_id, chunk.count, chunk.height, chunk.width), codes) != chunk.codes_crc:
                raise FileError(_DIFFERS.format("codes"))
            if chunk.pixels_crc is None or preview:
                images = self.model.decode(codes.to(self.model.device)).cpu()
            else:
                images = self._coder.decode_pixels(decoder, codes, (chunk.height, chunk.width))
                if pixels_crc(images) != chunk.pixels_crc:
                    raise FileError(_DIFFERS.format("pixels"))
        except AssertionError as error:  # what constriction makes of bytes that no encoder wrote
            raise FileError(_DIFFERS.format("symbols")) from error
        return images[:, :, : chunk.height, : chunk.width]


_DIFFERS = (
    "data must decode to what its checksum says; the {} do not: the file is damaged, or this machine computes "
    "otherwise than the one that wrote it; copy it again, or decompress it there"
)


def _pieces(images: Tensor) -> Iterator[Tensor]:
    """Of a batch so many images at a time as a stream should hold, at least one."""
    if images.dtype != torch.uint8 or images.dim() != 4 or not images.numel():
        raise ValueError(f"images must be uint8 (B, C, H, W), none of them 0; got {images.dtype} {tuple(images.shape)}")
    height, width = images.shape[2:]
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(f"images must have at most {LARGEST_SIDE} pixels a side; got {height}x{width}; cut them up")
    yield from images.split(max(1, _CHUNK_PIXELS // images[0, 0].numel()))


def _on_all_cores(work: Callable[[In], Out], items: Sequence[In]) -> Iterator[Out]:
    """`work` of each item, in order: as many at once as PyTorch may use threads, each on a single one.

    Streams know nothing of each other, and a thread of its own for each is faster than many that share every step.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) == 1:
        yield from map(work, items)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting = deque()
            for item in items:  # not all at once: what is decoded waits in memory
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield from _handed_out(waiting.popleft(), threads)
            while waiting:
                yield from _handed_out(waiting.popleft(), threads)
    finally:
        torch.set_num_threads(threads)


def _handed_out(result: Future[Out], threads: int) -> Iterator[Out]:
    """A result; while the caller is busy with it, PyTorch has all threads."""
    done = result.result()
    torch.set_num_threads(threads)
    yield done
    torch.set_num_threads(1)


def _model_id(model: DQAE, prior: CodePrior | None) -> bytes:
    digest = hashlib.sha256(model.fingerprint().encode())
    if prior is not None:
        digest.update(prior.fingerprint().encode())
    return digest.digest()[:4]
