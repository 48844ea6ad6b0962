"""One pass over images: likelihood, rate and reconstruction of a model, for all who show its metrics."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from depthq.analysis import CodeCounts
from depthq.codes import CodebookUsage
from depthq.extras import explain_missing
from depthq.models import DQAE, DQAEOutput
from depthq.pixels import denormalize, pad_to_multiple, psnr_db, stripes
from depthq.priors import CodePrior, nll_nats_of_tiles, uniform_nll_nats
from depthq.units import nats_to_bits

with explain_missing():
    from torchmetrics import MeanMetric, SumMetric
    from torchmetrics.functional.image import structural_similarity_index_measure

SSIM_WINDOW = 11  # pixels; SSIM does not exist for smaller images


@dataclass(frozen=True)
class LevelMetrics:
    """How one level uses its codebooks over all images measured; one entry per codebook."""

    perplexity: list[float]
    """exp(entropy in nats) of one code, 1..K."""
    usage: list[float]
    """Share of the K codes that occur, 0..1."""
    entropy_bits: list[float]
    """Plug-in entropy of one code in bits, 0..log2 K."""


@dataclass(frozen=True)
class Measurement:
    """Metrics of a model on a set of images; None where one does not exist for the model or its likelihood.

    What is per dim or per pixel is a total over all images by the total of their dims or pixels.
    """

    images: int
    """How many images the metrics are over."""
    nll_nats_per_dim: float | None
    """-log p(image | codes) per sub-pixel, nats. The code's own cost is not in it."""
    nll_bits_per_dim: float | None
    """The same in bits: what the paper reports (and prints in nats)."""
    causal_nll_bits_per_dim: float | None
    """-log2 p(image | codes) per sub-pixel under the causal head, over all pixels; None without one."""
    code_bits_per_dim: float | None
    """Cost of the codes if all are alike (the uniform prior), bits per sub-pixel."""
    total_bits_per_dim: float | None
    """code_bits_per_dim + causal_nll_bits_per_dim, or nll_bits_per_dim without a causal head: what a file would hold,
    and the one metric that compares with other likelihood models."""
    prior_bits_per_dim: float | None
    """Cost of the codes under the prior that was given, bits per sub-pixel; None without one."""
    total_bits_per_dim_with_prior: float | None
    """total_bits_per_dim with prior_bits_per_dim in the place of code_bits_per_dim; None without a prior."""
    code_bits_per_pixel: float | None
    """Cost of the codes if all are alike, bits per pixel, all channels together."""
    mse_normalized: float
    """Squared error of the likelihood's mean in the normalised space, per sub-pixel: the paper's L2."""
    psnr_db: float
    """Mean over images of the PSNR of the rounded reconstruction, dB."""
    psnr_db_mean_colour: float
    """The same for the trivial reconstruction, each image's mean colour: what any model must beat."""
    ssim: float | None
    """Mean structural similarity (11 x 11 Gaussian window, sigma 1.5) of the rounded reconstruction, up to 1, over the
    images that are not smaller than the window; None if all are."""
    levels: list[LevelMetrics]
    """Per level, coarse to fine; empty without a quantizer."""


@torch.no_grad()
def measure(
    model: DQAE,
    batches: Iterable[Tensor],
    *,
    prior: CodePrior | None = None,
    counts: CodeCounts | None = None,
    beside: Iterable[Callable[[Tensor, DQAEOutput], object]] = (),
    per_image: "PerImage | None" = None,
) -> Measurement:
    """Measure a model in one pass over images.

    Args:
        model: In eval mode, so that its codebooks stay as they are.
        batches: Images uint8 (B, C, H, W), each batch of any one size; they are brought to the model's device, and
            padded by reflection to what its strides divide. The padding counts in the codes' cost alone.
        prior: A prior over the codes of this model, whose cost is told beside that of the uniform one.
        counts: Counts the codes, pairs of them and all, for who wants to know more of them than how often each occurs.
        beside: Called with the images, not padded, and the model's output of each batch, for what else a caller wants
            of the pass.
        per_image: Takes in what each image comes to.

    Raises:
        ValueError: If there are no images, the model cannot take them, its likelihood of one is not finite, or `counts`
            are of other codebooks than the model's.
    """
    measuring, beside = Measuring(model, prior=prior, counts=counts, per_image=per_image), tuple(beside)
    for batch in batches:
        images = batch.to(model.device)
        padded = pad_to_multiple(images, model.config.image_multiple)
        output = model(padded)
        measuring.update(images, output)
        for look in beside:
            look(images, output)
    return measuring.compute()


class Measuring:
    """Accumulates a `Measurement` batch by batch; in several processes, over the images of all of them.

    Args:
        model: The model whose outputs it will see.
        prior: As for `measure`.
        counts: As for `measure`.
        per_image: As for `measure`; of this process alone.

    Raises:
        ValueError: If `counts` are of other codebooks than the model's.
    """

    def __init__(
        self,
        model: DQAE,
        *,
        prior: CodePrior | None = None,
        counts: CodeCounts | None = None,
        per_image: "PerImage | None" = None,
    ):
        self.likelihood = model.likelihood
        self.causal_head = model.causal_head
        self.prior = prior
        self.counts = counts
        self.per_image = per_image
        if counts is not None and counts.codebook_sizes != model.codebook_sizes:
            raise ValueError(
                f"counts must have this model's codebook sizes {model.codebook_sizes}; got {counts.codebook_sizes}; "
                "make them with CodeCounts(model.codebook_sizes)"
            )
        # Without positions, which differ where images do.
        self.counts_per_level = [
            CodeCounts([sizes], device=model.device, limit_bytes=0) for sizes in model.codebook_sizes
        ]

        def total() -> SumMetric:
            metric = SumMetric().to(model.device)
            metric.set_dtype(torch.float64)
            metric.update(0.0)  # of what does not exist for the model there is no other update, of which it would warn
            return metric

        self.images, self.pixels, self.dims = total(), total(), total()
        self.nll_nats, self.causal_nll_nats, self.code_nats, self.prior_nats = total(), total(), total(), total()
        self.squared_error_normalized = total()
        self.psnr_db = MeanMetric().to(model.device)
        self.psnr_db_mean_colour = MeanMetric().to(model.device)
        self.ssim, self.images_with_ssim = total(), total()

    @torch.no_grad()
    def update(self, images: Tensor, output: DQAEOutput) -> None:
        """Count in a batch of images uint8 (B, C, H, W) and what the model made of them, padded or not.

        Raises:
            ValueError: If the likelihood of an image is not finite.
        """
        rows, columns = images.shape[2:]
        parameters = output.parameters[:, :, :rows, :columns]
        nll_nats = sum(
            -self.likelihood.log_prob(parameters[:, :, part], images[:, :, part]).sum((1, 2, 3))
            for part in stripes(images.shape)
        )
        assert isinstance(nll_nats, Tensor)
        is_finite, image_nats = nll_nats.isfinite(), nll_nats
        if self.causal_head is not None:
            assert output.features is not None
            causal_nll_nats = self.causal_head.nll_nats(images, output.features[:, :, :rows, :columns])
            is_finite &= causal_nll_nats.isfinite()
            image_nats = causal_nll_nats
            self.causal_nll_nats.update(causal_nll_nats)
        broken = len(images) - int(is_finite.sum())
        if broken:
            raise ValueError(
                f"the model must give finite metrics; {broken} of {len(images)} images got none; it diverged"
            )
        self.images.update(len(images))
        self.pixels.update(images[:, 0].numel())
        self.dims.update(images.numel())
        self.nll_nats.update(nll_nats)
        with torch.autocast(images.device.type, enabled=False):  # SSIM's convolutions would lose it in bfloat16
            means = [self.likelihood.mean(parameters[:, :, part]) for part in stripes(images.shape)]
            quality_db = self._update_reconstruction(images, torch.cat(means, dim=2))
        if self.per_image is not None:
            self.per_image.update(images, quality_db, image_nats if self.likelihood.is_discrete else None)
        if output.codes is not None:
            self.code_nats.update(uniform_nll_nats(output.codes))
            if self.prior is not None:
                self.prior_nats.update(nll_nats_of_tiles(self.prior, output.codes))
            for of_level, level in zip(self.counts_per_level, output.codes.levels, strict=True):
                of_level.update(level.flatten(2).transpose(1, 2).flatten(0, 1))
            if self.counts is not None:
                self.counts.update(output.codes)

    def _update_reconstruction(self, images: Tensor, mean: Tensor) -> Tensor:
        """PSNR of each image in dB."""
        originals = images.float()
        self.squared_error_normalized.update(_normalized_squared_error(mean, originals))
        quality_db = psnr_db(mean.round(), originals)
        self.psnr_db.update(quality_db)
        self.psnr_db_mean_colour.update(psnr_db(originals.mean((2, 3), keepdim=True), originals))
        if min(images.shape[2:]) >= SSIM_WINDOW:
            ssim = structural_similarity_index_measure(mean.round(), originals, reduction="sum", data_range=255.0)
            assert isinstance(ssim, Tensor)
            self.ssim.update(ssim)
            self.images_with_ssim.update(len(images))
        return quality_db

    def compute(self) -> Measurement:
        """The metrics over all images seen so far, of all processes; call it once, after the last batch.

        Raises:
            ValueError: If there were no images.
        """
        images = int(self.images.compute())
        if not images:
            raise ValueError("images must hold at least one image; got none")
        dims, pixels = self.dims.compute().item(), self.pixels.compute().item()
        nll_nats = self.nll_nats.compute().item() / dims if self.likelihood.is_discrete else None
        nll_bits = None if nll_nats is None else nats_to_bits(nll_nats)
        causal_nll_bits = None
        if self.causal_head is not None:
            causal_nll_bits = nats_to_bits(self.causal_nll_nats.compute().item() / dims)
        image_bits = nll_bits if causal_nll_bits is None else causal_nll_bits
        has_codes = bool(self.counts_per_level)
        all_code_bits = None if not has_codes else nats_to_bits(self.code_nats.compute().item())
        code_bits = None if all_code_bits is None else all_code_bits / dims
        prior_bits = None
        if has_codes and self.prior is not None:
            prior_bits = nats_to_bits(self.prior_nats.compute().item() / dims)
        images_with_ssim = self.images_with_ssim.compute().item()
        return Measurement(
            images=images,
            nll_nats_per_dim=nll_nats,
            nll_bits_per_dim=nll_bits,
            causal_nll_bits_per_dim=causal_nll_bits,
            code_bits_per_dim=code_bits,
            total_bits_per_dim=None if image_bits is None or code_bits is None else image_bits + code_bits,
            prior_bits_per_dim=prior_bits,
            total_bits_per_dim_with_prior=(
                None if image_bits is None or prior_bits is None else image_bits + prior_bits
            ),
            code_bits_per_pixel=None if all_code_bits is None else all_code_bits / pixels,
            mse_normalized=self.squared_error_normalized.compute().item() / dims,
            psnr_db=self.psnr_db.compute().item(),
            psnr_db_mean_colour=self.psnr_db_mean_colour.compute().item(),
            ssim=self.ssim.compute().item() / images_with_ssim if images_with_ssim else None,
            levels=[_level_metrics(counts.all_reduce()) for counts in self.counts_per_level],
        )


def _normalized_squared_error(mean: Tensor, originals: Tensor) -> Tensor:
    """Squared difference of two images in grey values, in units of the normalised space."""
    unit = denormalize(torch.ones_like(mean[:1, :, :1, :1])) - denormalize(torch.zeros_like(mean[:1, :, :1, :1]))
    return ((mean - originals) / unit).square()


def _level_metrics(counts: CodeCounts) -> LevelMetrics:
    (sizes,) = counts.codebook_sizes
    usage = CodebookUsage.from_counts(counts.marginal(0), sizes)
    return LevelMetrics(
        perplexity=usage.perplexity.tolist(),
        usage=usage.usage.tolist(),
        entropy_bits=nats_to_bits(usage.entropy_nats).tolist(),
    )


class PerImage:
    """What each image of a pass comes to, and the images that are best and worst by PSNR.

    Args:
        kept: How many of the best, and of the worst, are kept.
    """

    def __init__(self, kept: int = 6):
        self.kept = kept
        self.psnr_db: list[float] = []
        self.nll_bits_per_dim: list[float] = []
        """-log2 p(image | codes) per sub-pixel, by the causal head if there is one; empty for a density."""
        self._extremes: list[tuple[float, Tensor]] = []

    def update(self, images: Tensor, quality_db: Tensor, nll_nats: Tensor | None) -> None:
        """Count in images uint8 (B, C, H, W), the PSNR of each, and what each costs given its codes."""
        qualities = quality_db.tolist()
        self.psnr_db += qualities
        if nll_nats is not None:
            self.nll_bits_per_dim += (nats_to_bits(nll_nats) / images[0].numel()).tolist()
        self._extremes += zip(qualities, images.cpu(), strict=True)
        self._extremes.sort(key=lambda pair: pair[0])
        if len(self._extremes) > 2 * self.kept:
            self._extremes = self._extremes[: self.kept] + self._extremes[-self.kept :]

    @property
    def worst(self) -> list[tuple[float, Tensor]]:
        """PSNR in dB and image uint8 (C, H, W), the worst first; at most half of all images."""
        return self._extremes[: min(self.kept, len(self._extremes) // 2)]

    @property
    def best(self) -> list[tuple[float, Tensor]]:
        """The same, the best first; with a single image that one."""
        return self._extremes[::-1][: min(self.kept, -(-len(self._extremes) // 2))]


class ImageSample:
    """Draws images without replacement from batches of unknown number; the same seed draws the same images.

    Args:
        size: How many to draw; all, if there are fewer.
        seed: Of the draw.
    """

    def __init__(self, size: int, seed: int = 0):
        self.size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._lots = torch.empty(0, dtype=torch.float32)  # one number per image kept; the highest stay
        self._images: Tensor | None = None

    def update(self, images: Tensor) -> None:
        """Let a batch of images uint8 (B, C, H, W) take part in the draw."""
        drawn = torch.rand(len(images), generator=self._generator, dtype=torch.float32)
        lots = torch.cat([self._lots, drawn])
        candidates = images.cpu() if self._images is None else torch.cat([self._images, images.cpu()])
        self._lots, kept = lots.topk(min(self.size, len(lots)))
        self._images = candidates[kept]

    @property
    def images(self) -> Tensor:
        """uint8 (B, C, H, W) on the CPU, B up to `size`; raises ValueError if there was no batch."""
        if self._images is None:
            raise ValueError("images must hold at least one image; got none")
        return self._images
