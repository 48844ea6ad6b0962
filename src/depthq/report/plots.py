"""Plots of entropy, mutual information and usage, as the paper's Fig. 3 shows them.

Each returns a matplotlib Figure that belongs to no window: save it with `figure.savefig(path)`. Give two runs
the same `vmin` and `vmax` to compare their colours.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from depthq.analysis.counting import CodeCounts
from depthq.analysis.mutual_information import MutualInformation
from depthq.analysis.summary import LevelSummary
from depthq.codes import CodebookUsage
from depthq.extras import explain_missing
from depthq.units import nats_to_bits

if TYPE_CHECKING:  # matplotlib and Pillow come with extras: load them where something is drawn
    from matplotlib.figure import Figure
    from PIL import Image

PANELS_PER_ROW = 5
BAR_COLOR = "#3b6ea8"
MAX_VALUES_SHOWN = 12  # rows of a matrix above which its values no longer fit into the cells


def entropy_map(level: LevelSummary) -> np.ndarray | None:
    """Entropy at each position of a level as a map: an image's (H, W), a sequence's (1, T), a video's frames one below
    another (T * H, W). None for rows without positions, and where positions are not told apart.
    """
    if level.position_entropy_nats is None or not level.grid:
        return None
    return np.reshape(level.position_entropy_nats, (-1, level.grid[-1]))


def plot_position_entropy(
    entropy_nats: Tensor, *, vmin: float = 0.0, vmax: float | None = None, title: str = "Entropy per position"
) -> "Figure":
    """Map of the mean entropy of a code at each position (Fig. 3, left).

    Args:
        entropy_nats: float (M, H, W), or (M, T) for sequences.
        vmin: Entropy of the darkest colour, in bits, which the map is drawn in.
        vmax: Entropy of the brightest colour; the highest in the map by default.
        title: Above the map.
    """
    if entropy_nats.dim() not in (2, 3):
        raise ValueError(f"entropy_nats must be (M, H, W) or (M, T); got shape {tuple(entropy_nats.shape)}")
    is_map = entropy_nats.dim() == 3
    mean = np.atleast_2d(nats_to_bits(entropy_nats.mean(0)).cpu().numpy())
    figure = new_figure(4.2, 3.6 if is_map else 1.6)
    axes = figure.add_subplot()
    image = axes.imshow(mean, vmin=vmin, vmax=vmax, cmap="viridis", aspect="equal" if is_map else "auto")
    axes.set(xlabel="column" if is_map else "position", ylabel="row" if is_map else "", title=title)
    _integer_ticks(axes)
    axes.yaxis.set_visible(is_map)
    figure.colorbar(image, ax=axes, label="mean entropy (bits)" if is_map else "bits")
    return figure


def plot_mutual_information(
    information: MutualInformation,
    *,
    corrected: MutualInformation | None = None,
    vmin: float = 0.0,
    vmax: float | None = None,
    title: str = "Mutual information between codebooks",
) -> "Figure":
    """Matrix of mutual information between pairs of codebooks (Fig. 3, right), entropy in grey on its diagonal.

    Colours are of the pairs alone: entropies lie so far above that all pairs would look the same.

    Args:
        information: Of V codebooks, at least two, drawn below the diagonal; up to 12 the values are written into the
            cells.
        corrected: Another estimate of the same pairs, drawn above the diagonal.
        vmin: Value of the darkest colour, in bits, which the matrix is drawn in.
        vmax: Value of the brightest colour; the highest of the pairs drawn by default.
        title: Above the matrix.

    Raises:
        ValueError: If there is only one codebook.
    """
    entropy, below = (nats_to_bits(nats).cpu().numpy() for nats in (information.entropy_nats, information.matrix_nats))
    if len(entropy) < 2:
        raise ValueError(f"information must be of at least two codebooks, to have a pair; got {len(entropy)}")
    above = np.full_like(below, np.nan) if corrected is None else nats_to_bits(corrected.matrix_nats).cpu().numpy()
    pairs = np.where(np.tri(len(below), k=-1, dtype=bool), below, above)
    np.fill_diagonal(pairs, np.nan)
    figure = new_figure(6.2, 5.2)
    axes = figure.add_subplot()
    image = axes.imshow(np.ma.masked_invalid(pairs), vmin=vmin, vmax=vmax, cmap="viridis")
    axes.imshow(np.ma.masked_equal(np.eye(len(entropy)), 0), vmin=0, vmax=12, cmap="Greys")
    if len(entropy) <= MAX_VALUES_SHOWN:
        _write_values(axes, image, pairs, entropy)
    _label_codebooks(axes, information)
    axes.spines[["top", "right"]].set_visible(corrected is not None)
    axes.set(xlabel="codebook", ylabel="codebook", title=title)
    figure.colorbar(image, ax=axes, label="bits shared (in grey: entropy, bits)")
    return figure


def plot_usage(counts: CodeCounts, level: int = 0, *, title: str = "Code usage") -> "Figure":
    """Histogram of the codes of each codebook of a level, most frequent first, one panel per codebook.

    The dotted line is even use, 1 / K. Codes that never occur leave the right end empty.

    Args:
        counts: Of the sample.
        level: Which level to show.
        title: Above the panels.
    """
    marginal = counts.marginal(level).cpu()
    sizes = counts.codebook_sizes[level]
    usage = CodebookUsage.from_counts(marginal, sizes)
    shares = (marginal / marginal.sum(1, keepdim=True)).sort(dim=1, descending=True).values.numpy()
    columns = min(len(sizes), PANELS_PER_ROW)
    rows = math.ceil(len(sizes) / columns)
    figure = new_figure(1.2 + 2.0 * columns, 0.9 + 1.6 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for index, size in enumerate(sizes):
        _draw_shares(panels[index], shares[index, :size])
        use = f"{usage.usage[index]:.0%} used, perplexity {usage.perplexity[index]:.0f}"
        panels[index].set_title(f"codebook {index}\n{use}", fontsize="small")
    panels[0].set(yscale="log", xlim=(0, max(sizes)), ylim=(shares[shares > 0].min() / 2, None))  # shared by all
    for panel in panels[len(sizes) :]:
        panel.set_visible(False)
    figure.suptitle(title)
    figure.supxlabel("code, most frequent first", fontsize="medium")
    figure.supylabel("share of positions", fontsize="medium")
    return figure


def _draw_shares(panel, shares: np.ndarray) -> None:
    panel.stairs(shares, fill=True, color=BAR_COLOR)
    panel.hlines(1 / len(shares), 0, len(shares), color="0.3", linestyle=":", linewidth=1)
    panel.spines[["top", "right"]].set_visible(False)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    with explain_missing():
        from matplotlib.figure import Figure  # loaded here: importing depthq must not wait for matplotlib

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def tile(rows: Sequence[Sequence["Figure"]]) -> "Image.Image":
    """Rows of figures as one picture, on white."""
    with explain_missing():
        from PIL import Image

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


def _drawn(figure: "Figure") -> "Image.Image":
    with explain_missing():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def short_number(value: float) -> str:
    """Two decimals, and three where little would be left of two."""
    return f"{value:z.3f}" if abs(value) < 0.1 else f"{value:.2f}"


def _integer_ticks(axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


def _write_values(axes, image, pairs: np.ndarray, entropy: np.ndarray) -> None:
    style = {"ha": "center", "va": "center", "fontsize": "x-small"}
    for index, value in enumerate(entropy):
        axes.text(index, index, short_number(value), **style)
    for (row, column), value in np.ndenumerate(pairs):
        if np.isnan(value):
            continue
        # Dark ink on the bright half of the scale, bright ink on the dark half.
        axes.text(column, row, short_number(value), color="black" if image.norm(value) > 0.6 else "white", **style)


def _label_codebooks(axes, information: MutualInformation) -> None:
    one_level = len({level for level, _ in information.codebooks}) == 1
    labels = [f"{index}" if one_level else f"{level}.{index}" for level, index in information.codebooks]
    axes.set_xticks(range(len(labels)), labels, rotation=0 if one_level else 90)
    axes.set_yticks(range(len(labels)), labels)
