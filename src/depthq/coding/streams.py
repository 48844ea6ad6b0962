"""One stream: the codes of some images under a prior, and behind them, if nothing is to be lost, their pixels."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from depthq.codes import Codes
from depthq.coding.coder import SymbolDecoder, SymbolEncoder
from depthq.coding.integers import NIBBLE, NUM_OFFSETS, Grid, NearBoundaryError, SubPixels, code_frequencies, sub_pixels
from depthq.likelihoods import Likelihood
from depthq.models import DQAE
from depthq.priors import CodePrior, Steps, UniformPrior, cut, grids_of, tiles_of
from depthq.priors import Grid as LevelGrid

_BLOCK_PIXELS = 32_768
"""Pixels whose frequencies are in memory at once, 25 MB of them."""
_CHUNK_PIXELS = 2048
"""Pixels whose distributions are computed at once, few enough for the caches."""


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
    def encode(self, codes: Codes, images: Tensor | None) -> tuple[int, bytes]:
        """The grid's offset and the stream of B images.

        Args:
            codes: Of the images, padded to what the model's strides divide.
            images: uint8 (B, C, H, W), not padded, to code them without loss too; None: the codes alone.

        Raises:
            ValueError: If no offset will do, or the likelihood is a density.
        """
        parameters = None if images is None else self._all_parameters(codes, images)
        for offset in range(NUM_OFFSETS):
            grid, encoder = Grid(offset, careful=True), SymbolEncoder()
            try:
                self._put_codes(codes, grid, encoder)
                if images is not None and parameters is not None:
                    self._put_pixels(images, parameters, grid, encoder)
            except NearBoundaryError:
                continue
            return offset, encoder.to_bytes()
        raise ValueError("images must be small enough for one stream; got some that no grid fits; cut them into tiles")

    @torch.no_grad()
    def decode_codes(self, offset: int, decoder: SymbolDecoder, batch_size: int, grids: Sequence[LevelGrid]) -> Codes:
        """The codes of B images on grids (H, W) per level."""
        grid, prior = Grid(offset, careful=False), self._prior()
        parts = tiles_of(prior, grids)
        if not parts:
            return _decode_codes(prior.steps(batch_size, grids), grid, decoder)
        levels = [
            torch.zeros((batch_size, len(sizes), *of_level), dtype=torch.int64)
            for sizes, of_level in zip(prior.codebook_sizes, grids, strict=True)
        ]
        for tiles in parts:
            codes = _decode_codes(prior.steps(batch_size * tiles.down * tiles.across, tiles.grids), grid, decoder)
            for level, part, scale in zip(levels, codes.levels, tiles.scales, strict=True):
                tiles.paste(part, level, scale)
        return Codes(tuple(levels), prior.codebook_sizes)

    @torch.no_grad()
    def decode_pixels(self, offset: int, decoder: SymbolDecoder, codes: Codes, size: tuple[int, int]) -> Tensor:
        """uint8 (B, C, H, W) of images of size (H, W) whose codes are decoded."""
        grid, likelihood = Grid(offset, careful=False), self.likelihood
        hidden = self._hidden(codes, size)
        batch, _, height, width = hidden.shape
        images = torch.zeros((batch, likelihood.image_channels, height, width), dtype=torch.uint8)
        values = images.flatten(2)
        for pixels, parameters, write in self._fronts(hidden, images):
            of_pixels = sub_pixels(likelihood, parameters, grid)
            decoded = _decode(of_pixels, likelihood.image_channels, decoder)  # (B N, C)
            decoded = decoded.unflatten(0, (batch, -1)).transpose(1, 2)
            values[:, :, pixels] = decoded
            write(pixels, decoded)
        return images

    @property
    def likelihood(self) -> Likelihood:
        """Of a pixel: that of the causal head where there is one."""
        head = self.model.causal_head
        return self.model.likelihood if head is None else head.likelihood

    def _prior(self) -> CodePrior:
        sizes = self.model.codebook_sizes
        return UniformPrior(sizes, [(1, 1)] * len(sizes)) if self.prior is None else self.prior

    def _put_codes(self, codes: Codes, grid: Grid, encoder: SymbolEncoder) -> None:
        parts = tiles_of(self._prior(), grids_of(codes))
        for part in [cut(codes, tiles) for tiles in parts] if parts else [codes]:
            self._put_tiles(part, grid, encoder)

    def _put_tiles(self, codes: Codes, grid: Grid, encoder: SymbolEncoder) -> None:
        steps = self._prior().steps(len(codes), grids_of(codes))
        while (logits := steps.next_logits()) is not None:
            known = steps.read(codes.levels[steps.group.level])
            for of_code, code in zip(logits, known.unbind(1), strict=True):
                encoder.put(code, code_frequencies(of_code, grid))
            steps.push(known)

    def _put_pixels(self, images: Tensor, parameters: Tensor, grid: Grid, encoder: SymbolEncoder) -> None:
        """Front by front, channel by channel, upper halves of all values, then lower ones: as `_decode` reads them."""
        batch, channels, height, width = images.shape
        parameters, values = parameters.flatten(0, 1), images.flatten(2).transpose(1, 2).flatten(0, 1)  # (B H W, ...)
        for fronts in _blocks(self._order(height, width), max(1, _BLOCK_PIXELS // batch)):
            # Rows: all pixels of the first front, image by image, then those of the second.
            first = torch.arange(batch)[:, None] * height * width
            rows = torch.cat([(first + front).flatten() for front in fronts])
            at = values[rows].long()  # (N, C)
            parts = zip(rows.split(_CHUNK_PIXELS), at.split(_CHUNK_PIXELS), strict=True)
            frequencies = torch.cat(
                [_frequencies(sub_pixels(self.likelihood, parameters[part], grid), known) for part, known in parts]
            )
            symbols = torch.stack([at // NIBBLE, at % NIBBLE], dim=2)  # (N, C, 2)
            order = _places(torch.tensor([batch * len(front) for front in fronts]), channels).flatten().argsort()
            encoder.put(symbols.flatten()[order], frequencies.flatten(0, 2)[order])

    def _order(self, height: int, width: int) -> Iterator[Tensor]:
        """The fronts of pixels int64 (N,) that can be decoded at once."""
        head = self.model.causal_head
        if head is None:
            yield from torch.arange(height * width).split(_CHUNK_PIXELS)
        else:
            yield from head.fronts(height, width)

    def _all_parameters(self, codes: Codes, images: Tensor) -> Tensor:
        """float64 (B, H W, P) of all pixels, given those before them."""
        hidden = self._hidden(codes, (images.shape[2], images.shape[3]))
        head = self.model.causal_head
        if head is None:
            return self.model.head(hidden).flatten(2).transpose(1, 2)
        everywhere = torch.arange(images[0, 0].numel())
        parts = [
            head.parameters_given(images, hidden, part.expand(len(images), -1))
            for part in everywhere.split(max(1, _CHUNK_PIXELS // len(images)))
        ]
        return torch.cat(parts, dim=1)

    def _hidden(self, codes: Codes, size: tuple[int, int]) -> Tensor:
        """What the heads read, without the rows and columns that were padded."""
        return self.model.hidden(codes)[:, :, : size[0], : size[1]].contiguous()

    def _fronts(
        self, hidden: Tensor, images: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Callable[[Tensor, Tensor], None]]]:
        """Pixels that can be decoded at once, their parameters (B N, P), and what to tell their values (B, C, N)."""
        head, (height, width) = self.model.causal_head, hidden.shape[2:]
        if head is None:
            parameters = self.model.head(hidden).flatten(2).transpose(1, 2)
            for front in self._order(height, width):
                yield front, parameters[:, front].flatten(0, 1), lambda pixels, values: None
            return
        walk = head.walk(hidden, images)
        for front in self._order(height, width):
            yield front, walk.parameters(front).flatten(0, 1), walk.write


def _decode_codes(steps: Steps, grid: Grid, decoder: SymbolDecoder) -> Codes:
    while (logits := steps.next_logits()) is not None:
        steps.push(torch.stack([decoder.get(code_frequencies(of_code, grid)) for of_code in logits], dim=1))
    return steps.codes()


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
