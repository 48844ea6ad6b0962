"""One stream: the codes of some images under a prior, and behind them, if nothing is to be lost, their pixels."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from depthq.codes import Codes
from depthq.coding.coder import SymbolDecoder, SymbolEncoder
from depthq.coding.integers import NIBBLE, NUM_OFFSETS, Grid, NearBoundaryError, SubPixels, code_frequencies, sub_pixels
from depthq.likelihoods import Likelihood
from depthq.models import DQAE
from depthq.models.causal_head import Walk
from depthq.priors import CodePrior, Steps, UniformPrior, cut, grids_of, tiles_of
from depthq.priors import Grid as LevelGrid

_BLOCK_PIXELS = 32_768
"""Pixels on one grid, few enough for one to be found; their frequencies, 25 MB, are in memory at once."""
_CHUNK_PIXELS = 2048
"""Pixels whose distributions are computed at once, few enough for the caches."""
_OFFSET_FREQUENCIES = torch.tensor([[(1 << 20) - NUM_OFFSETS + 1] + [1] * (NUM_OFFSETS - 1)])
"""Of a block's grid: nearly always the first will do, and costs next to nothing."""

Out = TypeVar("Out")


class StreamCoder:
    """Codes and pixels of images to bytes and back.

    Args:
        model: Whose codes they are, and who says what pixels are likely. A float64 copy of it is made.
        prior: Of its codes; None: all codes are alike.
    """

    def __init__(self, model: DQAE, prior: CodePrior | None):
        # The CPU's kernels in float64: no autocast, no TF32, no tensor cores.
        self.model = copy.deepcopy(model).cpu().double().eval()
        self.prior = None if prior is None else copy.deepcopy(prior).cpu().double().eval()

    @torch.no_grad()
    def encode(self, codes: Codes, images: Tensor | None) -> bytes:
        """The stream of B images.

        Args:
            codes: Of the images, padded to what the model's strides divide.
            images: uint8 (B, C, H, W), not padded, to code them without loss too; None: the codes alone.

        Raises:
            ValueError: If no offset of the grid will do for a block, or the likelihood is a density.
        """
        encoder = SymbolEncoder()
        self._put_codes(codes, encoder)
        if images is not None:
            self._put_pixels(codes, images, encoder)
        return encoder.to_bytes()

    @torch.no_grad()
    def decode_codes(self, decoder: SymbolDecoder, batch_size: int, grids: Sequence[LevelGrid]) -> Codes:
        """The codes of B images on grids (H, W) per level."""
        prior = self._prior()
        parts = tiles_of(prior, grids)
        if not parts:
            return _decode_codes(prior.steps(batch_size, grids), decoder)
        levels = [
            torch.zeros((batch_size, len(sizes), *of_level), dtype=torch.int64)
            for sizes, of_level in zip(prior.codebook_sizes, grids, strict=True)
        ]
        for tiles in parts:
            codes = _decode_codes(prior.steps(batch_size * tiles.down * tiles.across, tiles.grids), decoder)
            for level, part, scale in zip(levels, codes.levels, tiles.scales, strict=True):
                tiles.paste(part, level, scale)
        return Codes(tuple(levels), prior.codebook_sizes)

    @torch.no_grad()
    def decode_pixels(self, decoder: SymbolDecoder, codes: Codes, size: tuple[int, int]) -> Tensor:
        """uint8 (B, C, H, W) of images of size (H, W) whose codes are decoded."""
        batch, channels = len(codes), self.likelihood.image_channels
        images = torch.zeros((batch, channels, *size), dtype=torch.uint8)
        walk = self._walk(codes, images)
        for fronts in self._blocks(batch, size):
            grid = _next_grid(decoder)
            for front in fronts:
                of_pixels = sub_pixels(self.likelihood, walk.parameters(front).flatten(0, 1), grid)
                decoded = _decode(of_pixels, channels, decoder).unflatten(0, (batch, -1)).transpose(1, 2)  # (B, C, N)
                images.flatten(2)[:, :, front] = decoded
                walk.write(front, decoded)
        return images

    @property
    def likelihood(self) -> Likelihood:
        """Of a pixel: that of the causal head where there is one."""
        head = self.model.causal_head
        return self.model.likelihood if head is None else head.likelihood

    def _prior(self) -> CodePrior:
        sizes = self.model.codebook_sizes
        return UniformPrior(sizes, [(1, 1)] * len(sizes)) if self.prior is None else self.prior

    def _put_codes(self, codes: Codes, encoder: SymbolEncoder) -> None:
        parts = tiles_of(self._prior(), grids_of(codes))
        for part in [cut(codes, tiles) for tiles in parts] if parts else [codes]:
            self._put_tiles(part, encoder)

    def _put_tiles(self, codes: Codes, encoder: SymbolEncoder) -> None:
        steps = self._prior().steps(len(codes), grids_of(codes))
        while (logits := steps.next_logits()) is not None:
            known = steps.read(codes.levels[steps.group.level])
            frequencies = _on_a_safe_grid(
                lambda grid, logits=logits: [code_frequencies(of_code, grid) for of_code in logits], encoder
            )
            for of_code, code in zip(frequencies, known.unbind(1), strict=True):
                encoder.put(code, of_code)
            steps.push(known)

    def _put_pixels(self, codes: Codes, images: Tensor, encoder: SymbolEncoder) -> None:
        """Front by front, channel by channel, upper halves of all values, then lower ones: as `_decode` reads them."""
        batch, channels, height, width = images.shape
        walk, values = self._walk(codes, images), images.flatten(2).transpose(1, 2)  # (B, H W, C)
        for fronts in self._blocks(batch, (height, width)):
            sizes, pixels = torch.tensor([len(front) for front in fronts]), torch.cat(fronts)
            rows = _front_by_front(batch, sizes)
            at = values[:, pixels].flatten(0, 1)[rows].long()  # (N, C)
            parts = pixels.split(max(1, _CHUNK_PIXELS // batch))
            parameters = torch.cat([walk.parameters(part) for part in parts], dim=1).flatten(0, 1)[rows]
            frequencies = _on_a_safe_grid(partial(self._frequencies, parameters, at), encoder)
            symbols = torch.stack([at // NIBBLE, at % NIBBLE], dim=2)  # (N, C, 2)
            order = _places(batch * sizes, channels).flatten().argsort()
            encoder.put(symbols.flatten()[order], frequencies.flatten(0, 2)[order])

    def _frequencies(self, parameters: Tensor, values: Tensor, grid: Grid) -> Tensor:
        """int64 (N, C, 2, 16) of the two halves of values int64 (N, C) that are known."""
        parts = zip(parameters.split(_CHUNK_PIXELS), values.split(_CHUNK_PIXELS), strict=True)
        return torch.cat([_frequencies(sub_pixels(self.likelihood, part, grid), known) for part, known in parts])

    def _blocks(self, batch: int, size: tuple[int, int]) -> Iterator[list[Tensor]]:
        """Fronts of pixels int64 (N,) that can be decoded at once, in blocks that have a grid each."""
        head = self.model.causal_head
        in_a_row = torch.arange(size[0] * size[1]).split(_CHUNK_PIXELS)
        return _blocks(in_a_row if head is None else head.fronts(*size), max(1, _BLOCK_PIXELS // batch))

    def _walk(self, codes: Codes, images: Tensor) -> "Walk | PixelsOfCodes":
        """Says what is likely at pixels of images (B, C, H, W), given those before them as they stand there."""
        # Without the rows and columns that were padded.
        hidden = self.model.hidden(codes)[:, :, : images.shape[2], : images.shape[3]].contiguous()
        head = self.model.causal_head
        return PixelsOfCodes(self.model.head, hidden) if head is None else head.walk(hidden, images)


class PixelsOfCodes:
    """As `depthq.models.causal_head.Walk`, for pixels that do not see each other.

    Args:
        head: Makes parameters of the hidden map, position by position.
        hidden: float64 (B, F, H, W).
    """

    def __init__(self, head: nn.Module, hidden: Tensor):
        self._head = head
        self._hidden = hidden.flatten(2)

    def parameters(self, pixels: Tensor) -> Tensor:
        """Of the likelihood at pixels int64 (N,) of all images: (B, N, P)."""
        return self._head(self._hidden[:, :, pixels, None]).squeeze(3).transpose(1, 2)

    def write(self, pixels: Tensor, values: Tensor) -> None:
        """Nobody needs to know."""


def _on_a_safe_grid(make: Callable[[Grid], Out], encoder: SymbolEncoder) -> Out:
    """What can be made on the first grid where no output lies near a boundary; its offset goes before it."""
    for offset in range(NUM_OFFSETS):
        try:
            made = make(Grid(offset, careful=True))
        except NearBoundaryError:
            continue
        encoder.put(torch.tensor([offset], device="cpu"), _OFFSET_FREQUENCIES)
        return made
    raise ValueError(
        "images must be such that outputs of the model keep clear of the boundaries of some grid; got some that do "
        "not, as outputs of a model that has not learned anything may; train it for longer"
    )


def _next_grid(decoder: SymbolDecoder) -> Grid:
    return Grid(int(decoder.get(_OFFSET_FREQUENCIES)), careful=False)


def _decode_codes(steps: Steps, decoder: SymbolDecoder) -> Codes:
    while (logits := steps.next_logits()) is not None:
        grid = _next_grid(decoder)
        steps.push(torch.stack([decoder.get(code_frequencies(of_code, grid)) for of_code in logits], dim=1))
    return steps.codes()


def _front_by_front(batch: int, sizes: Tensor) -> Tensor:
    """Of rows that are all pixels of one image behind those of another, the order front by front, image by image."""
    images = torch.arange(batch)[:, None] * int(sizes.sum())
    return torch.cat([(images + front).flatten() for front in torch.arange(int(sizes.sum())).split(sizes.tolist())])


def _blocks(fronts: Iterable[Tensor], num_pixels: int) -> Iterator[list[Tensor]]:
    """Fronts in a row that have so many pixels together, or a few more; the last ones may have fewer."""
    block: list[Tensor] = []
    for front in fronts:
        block.append(front)
        if sum(map(len, block)) >= num_pixels:
            yield block
            block = []
    if block:
        yield block


def _frequencies(pixels: SubPixels, values: Tensor) -> Tensor:
    """int64 (N, C, 2, 16) of the two halves of values int64 (N, C) that are known."""
    halves = []
    for channel, at in enumerate(values.unbind(1)):
        high, low = pixels.high(channel).expand(len(at), -1), pixels.low(channel, at // NIBBLE)
        halves.append(torch.stack([high, low], dim=1))
        pixels.learn(channel, at)
    return torch.stack(halves, dim=1)


def _decode(pixels: SubPixels, channels: int, decoder: SymbolDecoder) -> Tensor:
    """uint8 (N, C), read from the stream."""
    values = []
    for channel in range(channels):
        high = decoder.get(pixels.high(channel))
        at = high * NIBBLE + decoder.get(pixels.low(channel, high))
        pixels.learn(channel, at)
        values.append(at)
    return torch.stack(values, dim=1).to(torch.uint8)


def _places(sizes: Tensor, channels: int) -> Tensor:
    """Where in the stream the symbols of fronts of so many rows stand: int64 (N, C, 2), one of each half of a value.

    A front of n rows takes 2 C n places: n upper halves of the first channel, n lower ones, and so on.
    """
    first_row = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    size = sizes.repeat_interleave(sizes)
    within = torch.arange(len(first_row)) - first_row
    half = torch.arange(2 * channels)
    places = (first_row * 2 * channels + within)[:, None] + half * size[:, None]
    return places.unflatten(1, (channels, 2))
