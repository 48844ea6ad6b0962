"""RUN/report.html: what was trained and how, how well it does, and what its codes say, in one self-contained file."""

import base64
import importlib.metadata
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthq.analysis.summary import CodeSummary
from depthq.codecs import ComparedRates
from depthq.extras import explain_missing
from depthq.files import replacing
from depthq.measure import Measurement, PerImage
from depthq.models import DQAE
from depthq.pixels import pad_to_multiple, psnr_db, reduced, to_picture
from depthq.report.curves import Chart, charts_of
from depthq.report.heatmap import HeatMap, entropy_maps, information_map
from depthq.report.mixing import decode_each_level
from depthq.report.patches import patches_of_codes
from depthq.report.prefixes import decode_prefixes
from depthq.report.samples import Samples
from depthq.runs import RunFolder, load_run_settings, read_metrics
from depthq.units import nats_to_bits

with explain_missing():
    import jinja2

BARS = 24
STRIP_IMAGES = 8
LONGEST_SIDE = 1024
"""Pixels."""


@dataclass(frozen=True)
class Measured:
    """What one pass of a model over images gives."""

    data: str
    """Where the images come from; the page says the last part of a path only, as it is meant for others."""
    split: str
    measurement: Measurement
    codes: CodeSummary | None
    """None without a quantizer."""
    sample: Tensor
    """uint8 (B, C, H, W), images drawn at random."""
    per_image: PerImage
    rates: ComparedRates | None = None
    """Of the first images; None without a quantizer."""
    samples: Samples | None = None
    """Drawn from the run's prior; None without one."""
    stand_in: str | None = None
    """The data whose images samples are compared with where the run's own are gone; None: the run's own."""


@dataclass(frozen=True)
class Metric:
    """A headline metric."""

    name: str
    value: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Pair:
    """An image and what the model makes of it, as data URLs."""

    original: str
    ours: str
    psnr_db: float
    rank: str
    """best or worst."""
    height: int
    width: int


@dataclass(frozen=True)
class Histogram:
    """How a metric is spread over images."""

    title: str
    unit: str
    shares: Sequence[float]
    """Height of each bar, 0..1, from the lowest value to the highest."""
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class PatchRow:
    """A code, and patches that use it."""

    name: str
    share: float
    pictures: Sequence[str]


@dataclass(frozen=True)
class Strip:
    """A row of images under one name."""

    name: str
    pictures: Sequence[str]
    """Data URLs."""
    psnr_db: float | None
    """Against the originals, mean over `Page.sample_size` images; None for the originals."""


@dataclass(frozen=True)
class CodebookRow:
    """How one codebook fares: counted over the images measured, and of late in training."""

    name: str
    size: int
    usage: float
    perplexity: float
    entropy_bits: float
    highest_bits: float
    redrawn: int | None
    """Codes re-drawn in the last 100 training steps; None if the quantizer keeps no count."""
    collapsed: bool | None
    """Whether its perplexity was below a tenth of K when training ended; None if the quantizer keeps no count."""


@dataclass(frozen=True)
class Page:
    """All that the template lays out."""

    run: str
    version: str
    written: datetime
    steps_done: int
    settings: Mapping[str, Any]
    parameters: int
    measured: Measured
    image_size: int
    metrics: Sequence[Metric]
    charts: Sequence[Chart]
    pairs: Sequence[Pair]
    histograms: Sequence[Histogram]
    patches: Sequence[PatchRow]
    strips: Sequence[Strip]
    prefixes: Sequence[Strip]
    samples: Sequence[Strip]
    sample_size: int
    information: HeatMap | None
    entropy: Sequence[HeatMap]
    health: Sequence[CodebookRow]


def write_report(run: Path, model: DQAE, measured: Measured) -> Path:
    """Write RUN/report.html, in place of one that is there.

    Args:
        run: A run of `depthq train`.
        model: Its model.
        measured: What came out on images.

    Returns:
        The file.
    """
    path = RunFolder(run).report
    with replacing(path) as file:
        file.write(render(_page(run, model, measured)).encode(errors="backslashreplace"))  # paths may be no text
    return path


def render(page: Page) -> str:
    """The page as HTML."""
    return environment().get_template("page.html").render(page=page)


def environment() -> jinja2.Environment:
    """Of all templates. All that they are given is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["bits"] = nats_to_bits
    return made


def _page(run: Path, model: DQAE, measured: Measured) -> Page:
    rows, settings = read_metrics(RunFolder(run).metrics), load_run_settings(run)
    codes, sample = measured.codes, _by_detail(measured.sample)
    return Page(
        run=run.resolve().name,
        version=importlib.metadata.version("depthq"),
        written=datetime.now(),
        steps_done=int(max((row["step"] for row in rows), default=0)),
        settings=settings | {name: _last_part(settings[name]) for name in ("data", "started_from") if name in settings},
        parameters=sum(weight.numel() for weight in model.parameters()),
        measured=replace(
            measured,
            data=_last_part(measured.data),
            stand_in=None if measured.stand_in is None else _last_part(measured.stand_in),
        ),
        image_size=sample.shape[-1],
        metrics=headline_metrics(measured.measurement),
        charts=charts_of(rows),
        pairs=_pairs(model, measured.per_image),
        histograms=_histograms(measured),
        patches=_patch_rows(model, sample) if codes else (),
        strips=_strips(model, sample) if codes and len(codes.levels) > 1 else (),
        prefixes=_prefix_strips(model, sample) if codes else (),
        samples=_sample_strips(measured.samples, measured.stand_in) if measured.samples else (),
        sample_size=len(sample),
        information=information_map(codes) if codes and len(codes.codebooks) > 1 else None,
        entropy=entropy_maps(codes) if codes else (),
        health=_health(model, codes) if codes else (),
    )


def headline_metrics(measurement: Measurement) -> list[Metric]:
    """Those that exist for the model's likelihood, the one that compares with other models first."""
    rows = [
        ("total", measurement.total_bits_per_dim, 3, "bits/dim", "image and codes: compare this one with other models"),
        ("image given codes", measurement.nll_bits_per_dim, 3, "bits/dim", "-log2 p(image | codes), without the codes"),
        ("the same in nats", measurement.nll_nats_per_dim, 3, "nats/dim", "as the paper prints it"),
        ("given codes and neighbours", measurement.causal_nll_bits_per_dim, 3, "bits/dim", "under the causal head"),
        ("PSNR", measurement.psnr_db, 2, "dB", f"mean colour alone: {measurement.psnr_db_mean_colour:.2f} dB"),
        ("SSIM", measurement.ssim, 3, "", "structural similarity, at most 1"),
        ("L2", measurement.mse_normalized, 4, "", "mean squared error in the normalised space, the paper's L2"),
        ("codes", measurement.code_bits_per_dim, 3, "bits/dim", "uniform prior"),
        ("codes under the prior", measurement.prior_bits_per_dim, 3, "bits/dim", "as depthq prior learned it"),
        (
            "total with prior",
            measurement.total_bits_per_dim_with_prior,
            3,
            "bits/dim",
            "image, and codes under the prior",
        ),
        ("codes per pixel", measurement.code_bits_per_pixel, 3, "bits/pixel", "uniform prior, all channels together"),
    ]
    return [
        Metric(name, f"{value:.{digits}f}", unit, meaning)
        for name, value, digits, unit, meaning in rows
        if value is not None
    ]


def _last_part(source: str) -> str:
    """Name of a folder, file or hub data set, without the path that tells whose machine it lies on."""
    return Path(source).resolve().name


def _by_detail(images: Tensor) -> Tensor:
    """The images drawn, those whose neighbouring pixels differ most, and are hardest to reconstruct, first."""
    detail = sum(images.float().diff(dim=axis).abs().mean((1, 2, 3)) for axis in (-2, -1))
    return images[torch.as_tensor(detail).argsort(descending=True)]


def _pairs(model: DQAE, per_image: PerImage) -> list[Pair]:
    """The worst and the best images by PSNR."""
    ranked = [("worst", *pair) for pair in per_image.worst] + [("best", *pair) for pair in per_image.best]
    return [_pair(model, rank, quality_db, image) for rank, quality_db, image in ranked]


def _pair(model: DQAE, rank: str, quality_db: float, image: Tensor) -> Pair:
    _, height, width = image.shape
    padded = pad_to_multiple(image[None].to(model.device), model.config.image_multiple)
    made = model.reconstruct(padded).cpu()[0, :, :height, :width]
    return Pair(picture_url(image), picture_url(made), quality_db, rank, height, width)


def _histograms(measured: Measured) -> list[Histogram]:
    per_image, has_causal_head = measured.per_image, measured.measurement.causal_nll_bits_per_dim is not None
    image = "Image given codes and neighbours" if has_causal_head else "Image given codes"
    rows = (("PSNR", "dB", per_image.psnr_db), (image, "bits/dim", per_image.nll_bits_per_dim))
    return [_histogram(title, unit, values) for title, unit, values in rows if len(values) > 1]


def _histogram(title: str, unit: str, values: Sequence[float]) -> Histogram:
    counts, edges = np.histogram(values, bins=min(BARS, len(values)))
    return Histogram(
        title, unit, (counts / counts.max()).tolist(), float(edges[0]), float(np.median(values)), float(edges[-1])
    )


def _patch_rows(model: DQAE, images: Tensor) -> list[PatchRow]:
    return [
        PatchRow(f"{row.level}.{row.codebook} code {row.code}", row.share, [picture_url(each) for each in row.patches])
        for row in patches_of_codes(model, images)
    ]


def _strips(model: DQAE, images: Tensor) -> list[Strip]:
    """The originals, each level's codes alone, and all levels (Fig. 4)."""
    codes = model.encode(images.to(model.device))
    rows = {f"level {level} alone": made for level, made in enumerate(decode_each_level(model, codes))}
    rows |= {"all levels": model.decode(codes)}
    strips = [Strip(name, _strip_urls(made.cpu()), _psnr_db(made.cpu(), images)) for name, made in rows.items()]
    return [Strip("original", _strip_urls(images), None), *strips]


def _prefix_strips(model: DQAE, images: Tensor) -> list[Strip]:
    """The originals, then what more and more of the codes say of them; nothing where codes come all at once."""
    shown = decode_prefixes(model, model.encode(images.to(model.device)))
    if len(shown) == 1:
        return []
    strips = [Strip(name, _strip_urls(made), _psnr_db(made, images)) for name, made in shown.items()]
    return [Strip("original", _strip_urls(images), None), *strips]


def _sample_strips(samples: Samples, stand_in: str | None) -> list[Strip]:
    nearest = "nearest images" if stand_in else "nearest training images"
    return [
        Strip("drawn from the prior", _strip_urls(samples.images), None),
        Strip(nearest, _strip_urls(samples.nearest), None),
    ]


def _psnr_db(made: Tensor, originals: Tensor) -> float:
    """Mean over images."""
    return float(psnr_db(made.float(), originals.float()).mean())


def _health(model: DQAE, codes: CodeSummary) -> list[CodebookRow]:
    rows = []
    for number, (level, counted) in enumerate(zip(model.levels, codes.levels, strict=True)):
        trained = level.quantizer.health()
        for index, size in enumerate(counted.codebook_sizes):
            rows.append(
                CodebookRow(
                    name=f"{number}.{index}",
                    size=size,
                    usage=counted.usage[index],
                    perplexity=counted.perplexity[index],
                    entropy_bits=counted.entropy_bits[index],
                    highest_bits=math.log2(size),
                    redrawn=None if trained is None else int(trained.redrawn[index]),
                    collapsed=None if trained is None else bool(trained.collapsed[index]),
                )
            )
    return rows


def picture_url(image: Tensor) -> str:
    """An image uint8 (C, H, W) as a data URL; of a large one a smaller copy."""
    file = io.BytesIO()
    reduced(to_picture(image), LONGEST_SIDE).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _strip_urls(images: Tensor) -> list[str]:
    return [picture_url(image) for image in images[:STRIP_IMAGES]]
