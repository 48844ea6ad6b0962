"""Plots of counted codes, of one set or of two side by side with shared scales. They need no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from depthq.analysis import CodeCounts, MutualInformation
from depthq.analysis.mutual_information import Estimator
from depthq.analysis.summary import ESTIMATORS, CodeSummary
from depthq.report.plots import (
    entropy_map,
    new_figure,
    plot_mutual_information,
    plot_position_entropy,
    plot_usage,
    tile,
)
from depthq.units import nats_to_bits

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

COLORS = ("#3b6ea8", "#d98032")


@dataclass(frozen=True)
class AnalyzedCodes:
    """What was counted of a set of codes, of any quantizer."""

    label: str
    counts: CodeCounts
    summary: CodeSummary

    @property
    def has_pairs(self) -> bool:
        """Whether there are pairs of codebooks, and they were counted."""
        return self.counts.has_pairs and len(self.counts.codebooks) > 1

    def mutual_information(self, estimator: Estimator) -> MutualInformation:
        """Of all pairs of codebooks, as the summary has it; only where they were counted."""
        pairs = self.summary.mutual_information[ESTIMATORS.index(estimator)]
        assert pairs.matrix_nats is not None
        matrix = torch.tensor(pairs.matrix_nats, dtype=torch.float64)
        return MutualInformation(self.counts.codebooks, estimator, matrix)


def draw_plots(runs: Sequence[AnalyzedCodes]) -> dict[str, "Image.Image"]:
    """All plots by name; what was left out of the counts is not drawn.

    Args:
        runs: One or two.
    """
    num_levels = max(len(run.summary.levels) for run in runs)
    plots = {"position_entropy": _position_entropy(runs), "mutual_information": _mutual_information(runs)}
    plots |= {f"usage_level{level}": _usage(runs, level) for level in range(num_levels)}
    plots["codebooks"] = [[plot_codebooks({run.label: run.summary for run in runs})]]
    return {name: tile(rows) for name, rows in plots.items() if any(rows)}


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
        style = {"width": width, "label": label, "color": COLORS[index]}
        place = np.array([names.index(name) for name in summary.codebooks]) - 0.4 + (index + 0.5) * width
        ceiling = np.log2([size for level in summary.levels for size in level.codebook_sizes])
        entropy_axes.bar(place, [nats_to_bits(h) for level in summary.levels for h in level.entropy_nats], **style)
        entropy_axes.hlines(ceiling, place - width / 2, place + width / 2, color="0.3", linestyle=":", linewidth=1)
        usage_axes.bar(place, [100 * u for level in summary.levels for u in level.usage], **style)
    for axes in (entropy_axes, usage_axes):
        axes.set_xticks(range(len(names)), names, fontsize="small")
        axes.set_xlabel("level.codebook")
        axes.spines[["top", "right"]].set_visible(False)
    entropy_axes.set(ylabel="bits", title="Entropy of one code (dotted: log2 K)")
    usage_axes.set(ylabel="% of codes", title="Codes that occur", ylim=(0, 100))
    if len(summaries) > 1:
        figure.legend(*entropy_axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(summaries))
    return figure


def _position_entropy(runs: Sequence[AnalyzedCodes]) -> list[list["Figure"]]:
    rows = [
        [
            plot_position_entropy(
                torch.from_numpy(positions if len(level.grid) > 1 else positions[0]).float()[None],
                **_entropy_scale(runs, index),
                title=_title(runs, run, f"Entropy per position, level {index}"),
            )
            for index, level in enumerate(run.summary.levels)
            if (positions := entropy_map(level)) is not None
        ]
        for run in runs
    ]
    return [row for row in rows if row]


def _entropy_scale(runs: Sequence[AnalyzedCodes], level: int) -> dict[str, float]:
    """Of one level in all runs: over levels of different K, one scale would hide the pattern of each."""
    maps = [entropy_map(each) for run in runs for each in run.summary.levels[level : level + 1]]
    values = np.concatenate([positions.ravel() for positions in maps if positions is not None])
    return {"vmin": nats_to_bits(float(values.min())), "vmax": nats_to_bits(float(values.max()))}


def _mutual_information(runs: Sequence[AnalyzedCodes]) -> list[list["Figure"]]:
    """Below the diagonal as counted, above it less what chance shows, which differs from pair to pair."""
    with_pairs = [run for run in runs if run.has_pairs]
    plugin = [run.mutual_information("plugin") for run in with_pairs]
    highest = max((nats_to_bits(float(pairs.matrix_nats.tril(-1).max())) for pairs in plugin), default=None)
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


def _usage(runs: Sequence[AnalyzedCodes], level: int) -> list[list["Figure"]]:
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


def _title(runs: Sequence[AnalyzedCodes], run: AnalyzedCodes, title: str, between: str = "\n") -> str:
    return title if len(runs) == 1 else run.label + between + title
