"""Pictures that a trained model makes of codes, of one run or of several side by side: what codes mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from depthq.codes import Codes
from depthq.measure import Measurement
from depthq.models import DQAE
from depthq.pixels import image_grid
from depthq.report.code_plots import AnalyzedCodes
from depthq.report.mixing import decode_each_level, mix_codebooks, mix_levels, mix_positions
from depthq.report.plots import new_figure, tile
from depthq.report.prefixes import PrefixMetrics, decode_prefixes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

PICTURES_PER_ROW = 8
MIXED_PAIRS = 3
SWAPPED_IMAGES = 5
MIX_STEPS = 6
GAP_PX = 2  # between the images of a grid


@dataclass(frozen=True)
class AnalyzedRun(AnalyzedCodes):
    """What was counted of a run's codes, the model that made them, and how it fares on the same images."""

    model: DQAE
    measurement: Measurement
    prefixes: Sequence[PrefixMetrics] = ()


def draw_pictures(runs: Sequence[AnalyzedRun], images: Tensor) -> dict[str, "Image.Image"]:
    """All pictures by name; those of several runs stand side by side, or one below the other.

    Args:
        runs: One or two, counted over the same images.
        images: uint8 (B, C, H, W), those to draw.
    """
    is_hierarchy = any(len(run.summary.levels) > 1 for run in runs)
    pictures = {
        "levels" if is_hierarchy else "reconstructions": [[_levels(run, images[:PICTURES_PER_ROW])] for run in runs],
        "prefixes": [[_prefixes(run, images[:PICTURES_PER_ROW])] for run in runs],
        "interpolation": [[figure] for run in runs for figure in _interpolations(run, images)],
        "swap": [[_swap(run, images[:SWAPPED_IMAGES]) for run in runs if len(run.summary.levels) > 1]],
    }
    return {name: tile(rows) for name, rows in pictures.items() if any(rows)}


def plot_pictures(
    rows: Mapping[str, Tensor], columns: Sequence[str] = (), *, title: str, column_name: str = ""
) -> "Figure":
    """A grid of images with a name to each row and, if given, to each column.

    Args:
        rows: By name, images uint8 (B, C, H, W) of one shape, B the same in all rows.
        columns: Names of the B columns.
        title: Above the grid.
        column_name: What the columns' names are of.
    """
    count = len(next(iter(rows.values())))
    picture = np.asarray(image_grid(*(images.cpu() for images in rows.values()), columns=count, gap=GAP_PX))
    row_height, column_width = picture.shape[0] / len(rows), picture.shape[1] / count
    figure = new_figure(2.2 + 0.9 * count, 0.6 + 0.9 * len(rows) * row_height / column_width)
    axes = figure.add_subplot()
    axes.imshow(picture, cmap="gray", interpolation="nearest")
    axes.set_yticks((np.arange(len(rows)) + 0.5) * row_height, list(rows))
    axes.set_xticks((np.arange(len(columns)) + 0.5) * column_width, list(columns))
    axes.set_xlabel(column_name)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return figure


def _levels(run: AnalyzedRun, images: Tensor) -> "Figure":
    codes = run.model.encode(images.to(run.model.device))
    reconstructed = run.model.decode(codes)
    if len(codes.levels) == 1:
        rows = {"original": images, "reconstructed": reconstructed}
        return plot_pictures(rows, title=f"{run.label}: reconstructions")
    alone = decode_each_level(run.model, codes)
    rows = {f"level {level} alone": pictures for level, pictures in enumerate(alone)}
    rows = {"original": images, **rows, "all levels": reconstructed}
    return plot_pictures(rows, title=f"{run.label}: what each level knows")


def _prefixes(run: AnalyzedRun, images: Tensor) -> "Figure":
    shown = decode_prefixes(run.model, run.model.encode(images.to(run.model.device)))
    return plot_pictures({"original": images, **shown}, title=f"{run.label}: what the first codes know")


def _interpolations(run: AnalyzedRun, images: Tensor) -> list["Figure"]:
    """By position and by codebook; nothing for a single image."""
    if len(images) < 2:
        return []
    codes = run.model.encode(images.to(run.model.device))
    _, num_codebooks, height, width = codes.levels[0].shape
    return [
        _interpolation(run, images, codes, mix_positions, height * width, "positions of level 0"),
        _interpolation(run, images, codes, mix_codebooks, num_codebooks, "codebooks of each level"),
    ]


def _interpolation(
    run: AnalyzedRun, images: Tensor, codes: Codes, mix: Callable[[Codes, Codes, int], Codes], total: int, parts: str
) -> "Figure":
    """From one image's codes to another's in whole parts, each step another number of them; originals at both ends."""
    counts = sorted({round(share * total) for share in np.linspace(0, 1, MIX_STEPS)})
    rows = {}
    for pair in range(min(MIXED_PAIRS, len(images) // 2)):
        a, b = slice(2 * pair, 2 * pair + 1), slice(2 * pair + 1, 2 * pair + 2)
        mixed = [run.model.decode(mix(codes[a], codes[b], count)).cpu() for count in counts]
        rows[f"pair {pair}"] = torch.cat([images[a], *mixed, images[b]])
    columns = ["original", *(f"{count} of {total}" for count in counts), "original"]
    title = f"{run.label}: from one image's codes to another's"
    return plot_pictures(rows, columns, title=title, column_name=f"{parts} whose codes are the second image's")


def _swap(run: AnalyzedRun, images: Tensor) -> "Figure":
    codes = run.model.encode(images.to(run.model.device))
    blank = torch.full_like(images[:1], 255)
    rows = {"": torch.cat([blank, images])}
    for index, image in enumerate(images):
        coarse = codes[index : index + 1]
        swapped = [run.model.decode(mix_levels(coarse, codes[i : i + 1])).cpu() for i in range(len(images))]
        rows[f"coarse of {index}"] = torch.cat([image[None], *swapped])
    columns = ["", *(f"fine of {index}" for index in range(len(images)))]
    return plot_pictures(rows, columns, title=f"{run.label}: level 0 of one image, the rest of another")
