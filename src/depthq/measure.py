"""One pass over images: likelihood, rate and reconstruction of a model, for all who show its metrics."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from depthq.analysis import CodeCounts
from depthq.codes import CodebookUsage
from depthq.extras import explain_missing
from depthq.models import DQAE, DQAEOutput
from depthq.pixels import denormalize, psnr_db
from depthq.priors import CodePrior, uniform_nll_nats
from depthq.units import bits_per_dim, bits_per_pixel, nats_to_bits

with explain_missing():
    from torchmetrics import MeanMetric, SumMetric
    from torchmetrics.image import StructuralSimilarityIndexMeasure

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
    """Metrics of a model on a set of images; None where one does not exist for the model or its likelihood."""

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
    """Mean structural similarity (11 x 11 Gaussian window, sigma 1.5) of the rounded reconstruction, up to 1."""
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
) -> Measurement:
    """Measure a model in one pass over images.

    Args:
        model: In eval mode, so that its codebooks stay as they are.
        batches: Images uint8 (B, C, H, W), all of one size; they are brought to the model's device.
        prior: A prior over the codes of this model, whose cost is told beside that of the uniform one.
        counts: Counts the codes, pairs of them and all, for who wants to know more of them than how often each occurs.
        beside: Called with the images and the model's output of each batch, for what else a caller wants of the pass.

    Raises:
        ValueError: If there are no images, the model cannot take them, its likelihood of one is not finite, or `counts`
            are of other codebooks than the model's.
    """
    measuring, beside = Measuring(model, prior=prior, counts=counts), tuple(beside)
    for batch in batches:
        images = batch.to(model.device)
        output = model(images)
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

    Raises:
        ValueError: If `counts` are of other codebooks than the model's.
    """

    def __init__(self, model: DQAE, *, prior: CodePrior | None = None, counts: CodeCounts | None = None):
        self.likelihood = model.likelihood
        self.causal_head = model.causal_head
        self.prior = prior
        self.counts = counts
        if counts is not None and counts.codebook_sizes != model.codebook_sizes:
            raise ValueError(
                f"counts must have this model's codebook sizes {model.codebook_sizes}; got {counts.codebook_sizes}; "
                "make them with CodeCounts(model.codebook_sizes)"
            )
        if counts is None and model.codebook_sizes:
            self.counts = CodeCounts(model.codebook_sizes, device=model.device, limit_bytes=0)
        self.images = SumMetric().to(model.device)
        self.nll_nats_per_dim = MeanMetric().to(model.device)
        self.causal_nll_nats_per_dim = MeanMetric().to(model.device)
        self.code_nats = MeanMetric().to(model.device).set_dtype(torch.float64)
        self.prior_nats = MeanMetric().to(model.device).set_dtype(torch.float64)
        self.mse_normalized = MeanMetric().to(model.device)
        self.psnr_db = MeanMetric().to(model.device)
        self.psnr_db_mean_colour = MeanMetric().to(model.device)
        self.ssim = StructuralSimilarityIndexMeasure(data_range=255.0).to(model.device)
        self.image_shape: tuple[int, int, int] | None = None

    @torch.no_grad()
    def update(self, images: Tensor, output: DQAEOutput) -> None:
        """Count in a batch of images uint8 (B, C, H, W) and what the model made of them.

        Raises:
            ValueError: If the likelihood of an image is not finite.
        """
        nll_nats = -self.likelihood.log_prob(output.parameters, images).sum((1, 2, 3))
        is_finite = nll_nats.isfinite()
        if self.causal_head is not None:
            assert output.features is not None
            causal_nll_nats = self.causal_head.nll_nats(images, output.features)
            is_finite &= causal_nll_nats.isfinite()
            self.causal_nll_nats_per_dim.update(causal_nll_nats / images[0].numel())
        broken = len(images) - int(is_finite.sum())
        if broken:
            raise ValueError(
                f"the model must give finite metrics; {broken} of {len(images)} images got none; it diverged"
            )
        self.image_shape = tuple(images.shape[1:])  # type: ignore[assignment]
        self.images.update(len(images))
        self.nll_nats_per_dim.update(nll_nats / images[0].numel())
        with torch.autocast(images.device.type, enabled=False):  # SSIM's convolutions would lose it in bfloat16
            self._update_reconstruction(images, self.likelihood.mean(output.parameters))
        if self.counts is not None:
            assert output.codes is not None
            self.code_nats.update(uniform_nll_nats(output.codes))
            if self.prior is not None:
                self.prior_nats.update(self.prior.nll_nats(output.codes))
            self.counts.update(output.codes)

    def _update_reconstruction(self, images: Tensor, mean: Tensor) -> None:
        originals = images.float()
        self.mse_normalized.update(_normalized_squared_error(mean, originals))
        self.psnr_db.update(psnr_db(mean.round(), originals))
        self.psnr_db_mean_colour.update(psnr_db(originals.mean((2, 3), keepdim=True), originals))
        if min(images.shape[2:]) >= SSIM_WINDOW:
            self.ssim.update(mean.round(), originals)

    def compute(self) -> Measurement:
        """The metrics over all images seen so far, of all processes; call it once, after the last batch.

        Raises:
            ValueError: If there were no images.
        """
        if self.image_shape is None:
            raise ValueError("images must hold at least one image; got none")
        nll_nats = self.nll_nats_per_dim.compute().item() if self.likelihood.is_discrete else None
        nll_bits = None if nll_nats is None else nats_to_bits(nll_nats)
        causal_nll_bits = (
            nats_to_bits(self.causal_nll_nats_per_dim.compute().item()) if self.causal_head is not None else None
        )
        image_bits = nll_bits if causal_nll_bits is None else causal_nll_bits
        image_code_bits = nats_to_bits(self.code_nats.compute().item()) if self.counts is not None else None
        code_bits = None if image_code_bits is None else bits_per_dim(image_code_bits, self.image_shape)
        prior_bits = None
        if self.counts is not None and self.prior is not None:
            prior_bits = bits_per_dim(nats_to_bits(self.prior_nats.compute().item()), self.image_shape)
        return Measurement(
            images=int(self.images.compute()),
            nll_nats_per_dim=nll_nats,
            nll_bits_per_dim=nll_bits,
            causal_nll_bits_per_dim=causal_nll_bits,
            code_bits_per_dim=code_bits,
            total_bits_per_dim=None if image_bits is None or code_bits is None else image_bits + code_bits,
            prior_bits_per_dim=prior_bits,
            total_bits_per_dim_with_prior=(
                None if image_bits is None or prior_bits is None else image_bits + prior_bits
            ),
            code_bits_per_pixel=None if image_code_bits is None else bits_per_pixel(image_code_bits, self.image_shape),
            mse_normalized=self.mse_normalized.compute().item(),
            psnr_db=self.psnr_db.compute().item(),
            psnr_db_mean_colour=self.psnr_db_mean_colour.compute().item(),
            ssim=torch.as_tensor(self.ssim.compute()).item() if min(self.image_shape[1:]) >= SSIM_WINDOW else None,
            levels=_level_metrics(self.counts.all_reduce()) if self.counts is not None else [],
        )


def _normalized_squared_error(mean: Tensor, originals: Tensor) -> Tensor:
    """Squared difference of two images in grey values, in units of the normalised space."""
    unit = denormalize(torch.ones_like(mean[:1, :, :1, :1])) - denormalize(torch.zeros_like(mean[:1, :, :1, :1]))
    return ((mean - originals) / unit).square()


def _level_metrics(counts: CodeCounts) -> list[LevelMetrics]:
    levels = []
    for level, sizes in enumerate(counts.codebook_sizes):
        usage = CodebookUsage.from_counts(counts.marginal(level), sizes)
        levels.append(
            LevelMetrics(
                perplexity=usage.perplexity.tolist(),
                usage=usage.usage.tolist(),
                entropy_bits=nats_to_bits(usage.entropy_nats).tolist(),
            )
        )
    return levels


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
