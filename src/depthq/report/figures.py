"""Figures of one run, or of several side by side with shared scales: what `depthq analyze` draws."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from depthq.analysis import CodeCounts, MutualInformation
from depthq.analysis.mutual_information import Estimator
from depthq.analysis.summary import ESTIMATORS, CodeSummary
from depthq.codes import Codes
from depthq.extras import explain_missing
from depthq.models import DQAE
from depthq.pixels import image_grid
from depthq.report.mixing import decode_each_level, mix_codebooks, mix_levels, mix_positions
from depthq.report.plots import new_figure, plot_mutual_information, plot_position_entropy, plot_usage

with explain_missing():
    from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES_PER_ROW = 8
MIXED_PAIRS = 3
SWAPPED_IMAGES = 5
MIX_STEPS = 6
GAP_PX = 2  # between the images of a grid
RUN_COLORS = ("#3b6ea8", "#d98032")


@dataclass(frozen=True)
class AnalyzedRun:
    """A run, what was counted of its codes, and the images to draw."""

    label: str
    model: DQAE
    counts: CodeCounts
    summary: CodeSummary

    def mutual_information(self, estimator: Estimator) -> MutualInformation:
        """Of all pairs of codebooks, as the summary has it."""
        pairs = self.summary.mutual_information[ESTIMATORS.index(estimator)]
        matrix = torch.tensor(pairs.matrix_nats, dtype=torch.float64)
        return MutualInformation(self.counts.codebooks, estimator, matrix)


def draw_figures(runs: Sequence[AnalyzedRun], images: Tensor) -> dict[str, Image.Image]:
    """All figures by name; runs stand side by side (or one below the other) and share their scales.

    Args:
        runs: One or two, counted over the same images.
        images: uint8 (B, C, H, W), those to draw.
    """
    num_levels = max(len(run.summary.levels) for run in runs)
    figures = {"position_entropy": _position_entropy(runs), "mutual_information": _mutual_information(runs)}
    figures |= {f"usage_level{level}": _usage(runs, level) for level in range(num_levels)}
    figures["codebooks"] = [[plot_codebooks({run.label: run.summary for run in runs})]]
    pictures = "levels" if num_levels > 1 else "reconstructions"
    figures[pictures] = [[_levels(run, images[:PICTURES_PER_ROW])] for run in runs]
    figures["interpolation"] = [[figure] for run in runs for figure in _interpolations(run, images)]
    figures["swap"] = [[_swap(run, images[:SWAPPED_IMAGES]) for run in runs if len(run.summary.levels) > 1]]
    return {name: tile(rows) for name, rows in figures.items() if any(rows)}


def plot_codebooks(summaries: Mapping[str, CodeSummary]) -> "Figure":
    """Bars of the entropy and of the usage of each codebook, one colour per run.

    Args:
        summaries: By the run's name, one or two.
    """
    figure = new_figure(9.0, 3.2)
    entropy_axes, usage_axes = figure.subplots(1, 2)
    width = 0.8 / len(summaries)
    names = [name for summary in summaries.values() for name in summary.codebooks]
    names = sorted(set(names), key=lambda name: tuple(map(int, name.split("."))))
    for index, (label, summary) in enumerate(summaries.items()):
        style = {"width": width, "label": label, "color": RUN_COLORS[index]}
        place = np.array([names.index(name) for name in summary.codebooks]) - 0.4 + (index + 0.5) * width
        ceiling = np.log([size for level in summary.levels for size in level.codebook_sizes])
        entropy_axes.bar(place, [h for level in summary.levels for h in level.entropy_nats], **style)
        entropy_axes.hlines(ceiling, place - width / 2, place + width / 2, color="0.3", linestyle=":", linewidth=1)
        usage_axes.bar(place, [100 * u for level in summary.levels for u in level.usage], **style)
    for axes in (entropy_axes, usage_axes):
        axes.set_xticks(range(len(names)), names, fontsize="small")
        axes.set_xlabel("level.codebook")
        axes.spines[["top", "right"]].set_visible(False)
    entropy_axes.set(ylabel="nats", title="Entropy of one code (dotted: log K)")
    usage_axes.set(ylabel="% of codes", title="Codes that occur", ylim=(0, 100))
    if len(summaries) > 1:
        figure.legend(*entropy_axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(summaries))
    return figure


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


def tile(rows: Sequence[Sequence["Figure"]]) -> Image.Image:
    """Rows of figures as one picture, on white."""
    drawn = [[_drawn(figure) for figure in row] for row in rows]
    width = max(sum(picture.width for picture in row) for row in drawn)
    page = Image.new("RGB", (width, sum(max(picture.height for picture in row) for row in drawn)), "white")
    top = 0
    for row in drawn:
        left = 0
        for picture in row:
            page.paste(picture, (left, top))
            left += picture.width
        top += max(picture.height for picture in row)
    return page


def _position_entropy(runs: Sequence[AnalyzedRun]) -> list[list["Figure"]]:
    return [
        [
            plot_position_entropy(
                torch.tensor([level.position_entropy_nats]),
                **_entropy_scale(runs, index),
                title=_title(runs, run, f"Entropy per position, level {index}"),
            )
            for index, level in enumerate(run.summary.levels)
        ]
        for run in runs
    ]


def _entropy_scale(runs: Sequence[AnalyzedRun], level: int) -> dict[str, float]:
    """Of one level in all runs: over levels of different K, one scale would hide the pattern of each."""
    maps = [each.position_entropy_nats for run in runs for each in run.summary.levels[level : level + 1]]
    values = [value for rows in maps for row in rows for value in row]
    return {"vmin": min(values), "vmax": max(values)}


def _mutual_information(runs: Sequence[AnalyzedRun]) -> list[list["Figure"]]:
    """Below the diagonal as counted, above it less what chance shows, which differs from pair to pair."""
    with_pairs = [run for run in runs if len(run.counts.codebooks) > 1]
    plugin = [run.mutual_information("plugin") for run in with_pairs]
    highest = max((float(pairs.matrix_nats.tril(-1).max()) for pairs in plugin), default=None)
    return [
        [
            plot_mutual_information(
                pairs,
                corrected=run.mutual_information("shuffle"),
                vmax=highest,
                title=_title(runs, run, _information_title(run.summary)),
            )
            for run, pairs in zip(with_pairs, plugin, strict=True)
        ]
    ]


def _information_title(summary: CodeSummary) -> str:
    positions = " and ".join(f"{level.positions:,}" for level in summary.levels)
    return f"Mutual information, {positions} positions\nbelow: plug-in; above: shuffle-corrected"


def _usage(runs: Sequence[AnalyzedRun], level: int) -> list[list["Figure"]]:
    figures = [
        plot_usage(run.counts, level, title=_title(runs, run, f"Code usage, level {level}", between=": "))
        for run in runs
        if level < len(run.summary.levels)
    ]
    panels = [figure.axes[0] for figure in figures]  # the others of a figure share its scales
    widest = max(panel.get_xlim() for panel in panels)
    lowest, highest = min(panel.get_ylim()[0] for panel in panels), max(panel.get_ylim()[1] for panel in panels)
    for panel in panels:
        panel.set(xlim=widest, ylim=(lowest, highest))
    return [[figure] for figure in figures]


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


def _title(runs: Sequence[AnalyzedRun], run: AnalyzedRun, title: str, between: str = "\n") -> str:
    return title if len(runs) == 1 else run.label + between + title


def _drawn(figure: "Figure") -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
