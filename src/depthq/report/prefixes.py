"""What the first parts of codes say: pictures and distortion as they would arrive, coarse to fine."""

from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from depthq.codes import Codes
from depthq.models import DQAE
from depthq.pixels import psnr_db
from depthq.priors import uniform_nll_nats
from depthq.units import bits_per_pixel, nats_to_bits

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Prefix:
    """The first codebooks of the first levels: of several levels all codebooks, until all levels are there."""

    levels: int
    codebooks: int
    name: str


@dataclass(frozen=True)
class PrefixMetrics:
    """What a prefix costs, and how near it comes."""

    levels: int
    """How many levels are decoded, coarse to fine."""
    codebooks: int
    """How many codebooks of each."""
    code_bits_per_pixel: float
    """Cost of these codes under the uniform prior, bits per pixel."""
    psnr_db: float
    """Mean over images, dB."""


def prefixes_of(model: DQAE) -> list[Prefix]:
    """Level by level, then with all levels codebook by codebook, if the quantizer has prefixes; the last is all."""
    num_levels, num_codebooks = len(model.codebook_sizes), len(model.codebook_sizes[0])
    levels = [
        Prefix(count, num_codebooks, "level 0" if count == 1 else f"levels 0 to {count - 1}")
        for count in range(1, num_levels)
    ]
    codebooks = [
        Prefix(num_levels, count, "first codebook" if count == 1 else f"first {count} codebooks")
        for count in range(1, num_codebooks)
        if all(level.quantizer.has_prefixes for level in model.levels)
    ]
    return [*levels, *codebooks, Prefix(num_levels, num_codebooks, "all codes")]


def decode_prefixes(model: DQAE, codes: Codes) -> dict[str, Tensor]:
    """Images uint8 (B, C, H, W) on the CPU by the names of `prefixes_of`."""
    return {prefix.name: decode(model, codes, prefix) for prefix in prefixes_of(model)}


def measure_prefixes(model: DQAE, images: Tensor) -> list[PrefixMetrics]:
    """Rate and distortion of each of `prefixes_of` over images uint8 (B, C, H, W), B at least 1."""
    batches = [(batch, model.encode(batch.to(model.device))) for batch in images.split(_BATCH_SIZE)]
    return [
        PrefixMetrics(
            levels=prefix.levels,
            codebooks=prefix.codebooks,
            code_bits_per_pixel=_bits_per_pixel(batches[0][1][:1], prefix, images[0]),
            psnr_db=fmean(
                value
                for batch, codes in batches
                for value in psnr_db(decode(model, codes, prefix).float(), batch.float()).tolist()
            ),
        )
        for prefix in prefixes_of(model)
    ]


def decode(model: DQAE, codes: Codes, prefix: Prefix) -> Tensor:
    """Images uint8 (B, C, H, W) on the CPU of the codes that belong to a prefix."""
    whole = prefix.codebooks == len(codes.codebook_sizes[0])
    return model.decode(codes, range(prefix.levels), None if whole else prefix.codebooks).cpu()


def _bits_per_pixel(codes: Codes, prefix: Prefix, image: Tensor) -> float:
    """Of the codes of one image."""
    channels, height, width = image.shape
    return bits_per_pixel(nats_to_bits(uniform_nll_nats(keep(codes, prefix)).item()), (channels, height, width))


def keep(codes: Codes, prefix: Prefix) -> Codes:
    """The codes that belong to a prefix."""
    return Codes(
        tuple(level[:, : prefix.codebooks] for level in codes.levels[: prefix.levels]),
        tuple(sizes[: prefix.codebooks] for sizes in codes.codebook_sizes[: prefix.levels]),
    )
