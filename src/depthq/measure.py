"""Likelihood, rate and reconstruction figures of a model on a set of images, accumulated batch by batch."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from depthq.codes import CodebookUsage, count_codes
from depthq.extras import explain_missing
from depthq.likelihoods import Likelihood
from depthq.models import DQAE, DQAEOutput
from depthq.pixels import denormalize, psnr_db
from depthq.units import bits_per_dim, bits_per_pixel, nats_to_bits

with explain_missing():
    from torchmetrics import MeanMetric, Metric, SumMetric
    from torchmetrics.image import StructuralSimilarityIndexMeasure

SSIM_WINDOW = 11  # pixels; SSIM does not exist for smaller images


@dataclass(frozen=True)
class LevelFigures:
    """How one level uses its codebooks over all evaluated images; one entry per codebook."""

    perplexity: list[float]
    """exp(entropy in nats) of one code, 1..K."""
    usage: list[float]
    """Share of the K codes that occur, 0..1."""
    entropy_bits: list[float]
    """Plug-in entropy of one code in bits, 0..log2 K."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model on a set of images; None where a figure does not exist for the model or its likelihood."""

    images: int
    """How many images the figures are over."""
    nll_nats_per_dim: float | None
    """-log p(image | codes) per sub-pixel, nats. The code's own cost is not in it."""
    nll_bits_per_dim: float | None
    """The same in bits: what the paper reports (and prints in nats)."""
    code_bits_per_dim: float | None
    """Cost of the codes under the uniform prior, bits per sub-pixel."""
    total_bits_per_dim: float | None
    """nll_bits_per_dim + code_bits_per_dim: the one figure that compares with other likelihood models."""
    code_bits_per_pixel: float | None
    """Cost of the codes under the uniform prior, bits per pixel, all channels together."""
    mse_normalized: float
    """Squared error of the likelihood's mean in the normalised space, per sub-pixel: the paper's L2."""
    psnr_db: float
    """Mean over images of the PSNR of the rounded reconstruction, dB."""
    psnr_db_mean_colour: float
    """The same for the trivial reconstruction, each image's mean colour: what any model must beat."""
    ssim: float | None
    """Mean structural similarity (11 x 11 Gaussian window, sigma 1.5) of the rounded reconstruction, up to 1."""
    levels: list[LevelFigures]
    """Per level, coarse to fine; empty without a quantizer."""


class Evaluator(nn.Module):
    """Accumulates `Evaluation` figures; in several processes, over the images of all of them.

    Args:
        model: The model whose outputs it will see.
    """

    def __init__(self, model: DQAE):
        super().__init__()
        self.likelihood: Likelihood = model.likelihood
        self.codebook_sizes = model.codebook_sizes
        self.images = SumMetric()
        self.nll_nats_per_dim = MeanMetric()
        self.mse_normalized = MeanMetric()
        self.psnr_db = MeanMetric()
        self.psnr_db_mean_colour = MeanMetric()
        self.ssim = StructuralSimilarityIndexMeasure(data_range=255.0)
        self.counts: Iterable[_CodeCounts] = nn.ModuleList(map(_CodeCounts, self.codebook_sizes))  # type: ignore
        self.code_bits: float | None = None
        self.image_shape: tuple[int, int, int] | None = None

    @torch.no_grad()
    def update(self, images: Tensor, output: DQAEOutput) -> None:
        """Count in a batch of images uint8 (B, C, H, W) and what the model made of them."""
        broken = len(images) - int(output.nll_nats.isfinite().sum())
        if broken:
            raise ValueError(
                f"the model must give finite figures; {broken} of {len(images)} images got none; it diverged"
            )
        self.image_shape = tuple(images.shape[1:])  # type: ignore[assignment]
        self.images.update(len(images))
        self.nll_nats_per_dim.update(output.nll_nats / images[0].numel())
        with torch.autocast(images.device.type, enabled=False):  # SSIM's convolutions would lose it in bfloat16
            self._update_reconstruction(images, self.likelihood.mean(output.parameters))
        if output.codes is not None:
            self.code_bits = output.codes.num_bits()
            for metric, codes in zip(self.counts, output.codes.levels, strict=True):
                metric.update(codes)

    def _update_reconstruction(self, images: Tensor, mean: Tensor) -> None:
        originals = images.float()
        self.mse_normalized.update(_normalized_squared_error(mean, originals))
        self.psnr_db.update(psnr_db(mean.round(), originals))
        self.psnr_db_mean_colour.update(psnr_db(originals.mean((2, 3), keepdim=True), originals))
        if min(images.shape[2:]) >= SSIM_WINDOW:
            self.ssim.update(mean.round(), originals)

    def compute(self) -> Evaluation:
        """The figures over all images seen so far; raises ValueError if there were none."""
        if self.image_shape is None:
            raise ValueError("images must hold at least one image; got none")
        nll_nats = self.nll_nats_per_dim.compute().item() if self.likelihood.is_discrete else None
        nll_bits = None if nll_nats is None else nats_to_bits(nll_nats)
        code_bits = None if self.code_bits is None else bits_per_dim(self.code_bits, self.image_shape)
        return Evaluation(
            images=int(self.images.compute()),
            nll_nats_per_dim=nll_nats,
            nll_bits_per_dim=nll_bits,
            code_bits_per_dim=code_bits,
            total_bits_per_dim=None if nll_bits is None or code_bits is None else nll_bits + code_bits,
            code_bits_per_pixel=None if self.code_bits is None else bits_per_pixel(self.code_bits, self.image_shape),
            mse_normalized=self.mse_normalized.compute().item(),
            psnr_db=self.psnr_db.compute().item(),
            psnr_db_mean_colour=self.psnr_db_mean_colour.compute().item(),
            ssim=torch.as_tensor(self.ssim.compute()).item() if min(self.image_shape[1:]) >= SSIM_WINDOW else None,
            levels=[
                _level_figures(counts.compute(), sizes)
                for counts, sizes in zip(self.counts, self.codebook_sizes, strict=True)
            ],
        )


class _CodeCounts(Metric):
    """How often each code of a level occurs, int64 (M, max K_m), summed over batches and processes."""

    def __init__(self, codebook_sizes: tuple[int, ...]):
        super().__init__()
        self.codebook_sizes = codebook_sizes
        self.counts: Tensor
        zeros = torch.zeros(len(codebook_sizes), max(codebook_sizes), dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        self.counts += count_codes(codes, self.codebook_sizes)

    def compute(self) -> Tensor:
        return self.counts


def _normalized_squared_error(mean: Tensor, originals: Tensor) -> Tensor:
    """Squared difference of two images in grey levels, in units of the normalised space."""
    unit = denormalize(torch.ones_like(mean[:1, :, :1, :1])) - denormalize(torch.zeros_like(mean[:1, :, :1, :1]))
    return ((mean - originals) / unit).square()


def _level_figures(counts: Tensor, sizes: tuple[int, ...]) -> LevelFigures:
    usage = CodebookUsage.from_counts(counts, sizes)
    return LevelFigures(
        perplexity=usage.perplexity.tolist(),
        usage=usage.usage.tolist(),
        entropy_bits=nats_to_bits(usage.entropy_nats).tolist(),
    )


class ImageSample:
    """Draws images without replacement from batches of unknown number; the same seed draws the same images.

    Args:
        size: How many to draw; all, if there are fewer.
        seed: Of the draw.
    """

    def __init__(self, size: int, seed: int = 0):
        self.size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._lots = torch.empty(0)  # one number per image kept; the highest stay
        self._images: Tensor | None = None

    def update(self, images: Tensor) -> None:
        """Let a batch of images uint8 (B, C, H, W) take part in the draw."""
        lots = torch.cat([self._lots, torch.rand(len(images), generator=self._generator)])
        candidates = images.cpu() if self._images is None else torch.cat([self._images, images.cpu()])
        self._lots, kept = lots.topk(min(self.size, len(lots)))
        self._images = candidates[kept]

    @property
    def images(self) -> Tensor:
        """uint8 (B, C, H, W) on the CPU, B up to `size`; raises ValueError if there was no batch."""
        if self._images is None:
            raise ValueError("images must hold at least one image; got none")
        return self._images
