"""What codes cost beside the same images as PNG and JPEG files, in one sentence: of the first images of a pass."""

import torch
from torch import Tensor

from depthq.codes import Codes
from depthq.models import DQAE
from depthq.priors import CodePrior, nll_nats_of_tiles, uniform_nll_nats
from depthq.units import nats_to_bits

MOST_IMAGES = 64
_MOST_PIXELS = 2**21
"""Of a few photos: the search for a quality writes eight JPEG files of each."""


class Compared:
    """Keeps the first images of a pass and their codes, up to 64 and two million pixels, at least one batch.

    Args:
        model: Made the codes.
        prior: Over them; None: all are alike.
    """

    def __init__(self, model: DQAE, prior: CodePrior | None):
        self.model = model
        self.prior = None if prior is None else prior.to(model.device)
        self._kept: list[tuple[Tensor, Codes]] = []
        self._images = self._pixels = 0

    def update(self, images: Tensor, codes: Codes) -> None:
        """Images uint8 (B, C, H, W) and their codes, of the padded images."""
        if self._images < MOST_IMAGES and self._pixels < _MOST_PIXELS:
            kept = images[: MOST_IMAGES - self._images]
            self._kept.append((kept, codes[: len(kept)]))
            self._images += len(kept)
            self._pixels += kept[:, 0].numel()

    @torch.no_grad()
    def sentence(self) -> str:
        """Bits per pixel of the codes, of PNG, and of JPEG of equal PSNR."""
        from depthq.codecs import beside_codecs  # here, as Pillow comes with an extra

        pairs = [(images.cpu(), self._reconstructed(images, codes)) for images, codes in self._kept]
        rates = beside_codecs(pairs)
        uniform = self._bits_per_pixel([uniform_nll_nats(codes) for _, codes in self._kept])
        told = f"{uniform:.2f} as codes"
        if self.prior is not None:
            prior = self.prior
            under = self._bits_per_pixel([nll_nats_of_tiles(prior, codes) for _, codes in self._kept])
            told = f"{under:.2f} as codes under the prior ({uniform:.2f} if all are alike)"
        jpeg = f"{rates.jpeg_bits_per_pixel:.2f} as JPEG of equal PSNR ({rates.psnr_db:.1f} dB)"
        if not rates.jpeg_reaches:
            jpeg += ", or as near as JPEG comes"
        which = "1 image" if rates.images == 1 else f"the first {rates.images} images"
        return f"bits/pixel of {which}: {told}, {rates.png_bits_per_pixel:.2f} as PNG, {jpeg}"

    def _reconstructed(self, images: Tensor, codes: Codes) -> Tensor:
        return self.model.decode(codes).cpu()[:, :, : images.shape[2], : images.shape[3]]

    def _bits_per_pixel(self, nats: list[Tensor]) -> float:
        return nats_to_bits(sum(float(each.sum()) for each in nats)) / self._pixels
