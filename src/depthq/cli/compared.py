"""What codes cost beside the same images as PNG and JPEG files, in one sentence: of the first images of a pass."""

import torch
from torch import Tensor

from depthq.codecs import ComparedRates, beside_codecs
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
    def rates(self) -> ComparedRates:
        """Bits per pixel of the codes, of PNG, and of JPEG of equal PSNR."""
        prior = self.prior
        return ComparedRates(
            self._bits_per_pixel([uniform_nll_nats(codes) for _, codes in self._kept]),
            prior and self._bits_per_pixel([nll_nats_of_tiles(prior, codes) for _, codes in self._kept]),
            beside_codecs((images.cpu(), self._reconstructed(images, codes)) for images, codes in self._kept),
        )

    def sentence(self) -> str:
        """The rates in words."""
        rates = self.rates()
        told, codecs = f"{rates.uniform_bits_per_pixel:.2f} as codes", rates.codecs
        if rates.prior_bits_per_pixel is not None:
            told = (
                f"{rates.prior_bits_per_pixel:.2f} as codes under the prior "
                f"({rates.uniform_bits_per_pixel:.2f} if all are alike)"
            )
        jpeg = f"{codecs.jpeg_bits_per_pixel:.2f} as JPEG of equal PSNR ({codecs.psnr_db:.1f} dB)"
        if not codecs.jpeg_reaches:
            jpeg += ", or as near as JPEG comes"
        which = "1 image" if codecs.images == 1 else f"the first {codecs.images} images"
        return f"bits/pixel of {which}: {told}, {codecs.png_bits_per_pixel:.2f} as PNG, {jpeg}"

    def _reconstructed(self, images: Tensor, codes: Codes) -> Tensor:
        return self.model.decode(codes).cpu()[:, :, : images.shape[2], : images.shape[3]]

    def _bits_per_pixel(self, nats: list[Tensor]) -> float:
        return nats_to_bits(sum(float(each.sum()) for each in nats)) / self._pixels
