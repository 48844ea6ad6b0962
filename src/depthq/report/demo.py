"""One page that shows what depthq does: photos as codes, samples, a lossless file, a training run while it runs."""

import base64
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from depthq.codecs import encoded_bytes
from depthq.codes import Codes
from depthq.files import replacing
from depthq.measure import Measurement
from depthq.models import DQAE
from depthq.pixels import pad_to_multiple, psnr_db
from depthq.priors import CodePrior, nll_nats_of_tiles
from depthq.report.curves import Chart, charts_of
from depthq.report.page import Metric, environment, headline_metrics, picture_url
from depthq.report.prefixes import decode, keep, prefixes_of
from depthq.runs import RunFolder, read_metrics
from depthq.units import nats_to_bits


@dataclass(frozen=True)
class Stage:
    """A photo as some of its codes show it."""

    name: str
    picture: str
    """A data URL."""
    bits_per_pixel: float
    """Of these codes, if all are alike."""
    psnr_db: float


@dataclass(frozen=True)
class PhotoShown:
    """A photo, what more and more of its codes say of it, and what it costs."""

    name: str
    height: int
    width: int
    original: str
    stages: Sequence[Stage]
    prior_bits_per_pixel: float | None
    """Of all codes under the prior."""


@dataclass(frozen=True)
class File:
    """What a photo takes without loss."""

    format: str
    num_bytes: int
    bits_per_dim: float


@dataclass(frozen=True)
class RunShown:
    """A training run as far as it is."""

    is_done: bool
    steps_done: int
    steps: int
    charts: Sequence[Chart]
    grids: Sequence[tuple[int, str]]
    """Step and data URL of the first, a middle and the newest picture of reconstructions."""
    metrics: Sequence[Metric]


@dataclass(frozen=True)
class DemoPage:
    """All that the template lays out."""

    photos: Sequence[PhotoShown]
    samples: Sequence[str]
    files: Sequence[File]
    is_compared: bool
    """Whether our file was decoded, and gave every pixel back."""
    seconds: float
    """From the start to the first page."""
    run: RunShown | None


def write_demo(path: Path, page: DemoPage) -> None:
    """Write the page, in place of one that is there; while the run is not done it loads itself anew."""
    html = environment().get_template("demo.html").render(page=page, version=importlib.metadata.version("depthq"))
    with replacing(path) as file:
        file.write(html.encode(errors="backslashreplace"))


@torch.no_grad()
def show_photo(name: str, image: Tensor, model: DQAE, prior: CodePrior | None, *, in_stages: bool = True) -> PhotoShown:
    """What the page tells of a photo uint8 (3, H, W) of any size: `in_stages` of its codes, or with all of them."""
    _, height, width = image.shape
    codes = model.encode(pad_to_multiple(image[None], model.config.image_multiple))
    stages = []
    for prefix in prefixes_of(model) if in_stages else prefixes_of(model)[-1:]:
        made = decode(model, codes, prefix)[:, :, :height, :width]
        bits = keep(codes, prefix).num_bits() / (height * width)
        stages.append(Stage(prefix.name, picture_url(made[0]), bits, _psnr_db(made[0], image)))
    stages.sort(key=lambda stage: stage.bits_per_pixel)
    return PhotoShown(name, height, width, picture_url(image), stages, _prior_bits(codes, prior, height * width))


def _prior_bits(codes: Codes, prior: CodePrior | None, num_pixels: int) -> float | None:
    return None if prior is None else nats_to_bits(float(nll_nats_of_tiles(prior, codes))) / num_pixels


def show_files(image: Tensor, ours: bytes) -> list[File]:
    """Our file of an image uint8 (3, H, W) and those of codecs, the smallest first; JPEG XL where it is installed."""
    sizes = {
        "depthq": len(ours),
        "PNG": encoded_bytes(image, format="PNG", optimize=True),
        "WebP": encoded_bytes(image, format="WEBP", lossless=True, quality=100, method=6),
    }
    try:
        import pillow_jxl  # noqa: F401  # makes Pillow know JPEG XL
    except ModuleNotFoundError:
        pass
    else:
        sizes["JPEG XL"] = encoded_bytes(image, format="JXL", lossless=True, effort=9)
    files = [File(name, size, 8 * size / image.numel()) for name, size in sizes.items()]
    return sorted(files, key=lambda file: file.num_bytes)


def show_run(run: Path, steps: int, measured: Measurement | None) -> RunShown:
    """What a run has left behind so far; `measured` is its end."""
    rows = read_metrics(RunFolder(run).metrics)
    grids = sorted(RunFolder(run).reconstructions.glob("step=*.png"))
    chosen = sorted({0, len(grids) // 2, len(grids) - 1}) if grids else []
    return RunShown(
        is_done=measured is not None,
        steps_done=int(max((row["step"] for row in rows), default=0)),
        steps=steps,
        charts=charts_of(rows),
        grids=[(int(grids[index].stem.removeprefix("step=")), _file_url(grids[index])) for index in chosen],
        metrics=headline_metrics(measured) if measured else (),
    )


def sample_urls(images: Tensor) -> list[str]:
    """Data URLs of images uint8 (B, C, H, W)."""
    return [picture_url(image) for image in images]


def _psnr_db(made: Tensor, original: Tensor) -> float:
    return float(psnr_db(made[None].float(), original[None].float()))


def _file_url(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
