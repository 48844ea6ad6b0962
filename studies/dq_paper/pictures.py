"""The figures of docs/reproduction.md, drawn from results."""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from PIL import Image, ImageDraw, ImageFont

from depthq.report.plots import new_figure
from studies.dq_paper.book import ResultsBook
from studies.dq_paper.comparison import base_of, rate_distortion_points, row_pairs
from studies.dq_paper.declared import Item, Row
from studies.dq_paper.scales import Scale

LABEL_PX = 26
COLOURS = {"depthwise": "#3b6ea8", "shared": "#d98032", "residual": "#4f9d69", "scalar": "#8c5fa8"}
CODECS = {"jpeg": "#7a7a7a", "webp": "#b0875a", "jxl": "#222222"}


def side_by_side(item: Item, scale: Scale, book: ResultsBook) -> Image.Image | None:
    """For each pair of rows: the first test images, what depthwise makes of them, and what shared makes of them."""
    blocks = []
    for depthwise, shared in row_pairs(item):
        ours = _strips(depthwise, scale, book)
        theirs = _strips(shared, scale, book) if shared else []
        if ours and theirs:
            blocks.append(_labelled([*ours[:2], theirs[1]], f"{base_of(depthwise)}: original, depthwise, shared"))
    return _stacked(blocks) if blocks else None


def levels_alone(item: Item, scale: Scale, book: ResultsBook) -> Image.Image | None:
    """For each row: the first test images, what becomes of them, and of each level's codes alone."""
    blocks = []
    for row in item.rows:
        if strips := _strips(row, scale, book):
            alone = ", ".join(f"level {level} alone" for level in range(len(strips) - 2))
            blocks.append(_labelled(strips, f"{row.name}: original, all levels, {alone} (the other zero)"))
    return _stacked(blocks) if blocks else None


def _strips(row: Row, scale: Scale, book: ResultsBook) -> list[Image.Image]:
    """The rows of images in a row's stored picture, see `Outcome.picture`; none if there is no picture."""
    result = book.first(row, scale)
    if not (result and result.picture):
        return []
    num_levels = len(result.codes["levels"]) if result.codes else 1
    count = 2 + (num_levels if num_levels > 1 else 0)
    with Image.open(result.picture) as picture:
        whole = picture.convert("RGB")
    edges = [round(whole.height * place / count) for place in range(count + 1)]
    return [whole.crop((0, top, whole.width, bottom)) for top, bottom in pairwise(edges)]


def decoupling(item: Item, scale: Scale, book: ResultsBook) -> Image.Image | None:
    """Entropy at each position, and plug-in mutual information of codebooks, a line per row, on common scales."""
    codes = {row.name: result.codes for row in item.rows if (result := book.first(row, scale)) and result.codes}
    if not codes:
        return None
    maps = [np.array(summary["levels"][-1]["position_entropy_nats"]) for summary in codes.values()]
    matrices = [np.array(summary["mutual_information"][0]["matrix_nats"]) for summary in codes.values()]
    figure = new_figure(8.0, 3.6 * len(codes))
    axes = figure.subplots(len(codes), 2, squeeze=False)
    for line, name in enumerate(codes):
        for place, values, low, what in (
            (0, maps, min(map(np.min, maps)), "entropy at each position, mean over codebooks"),
            (1, matrices, 0.0, "mutual information, on the diagonal entropy"),
        ):
            image = axes[line, place].imshow(values[line], vmin=low, vmax=max(map(np.max, values)), cmap="viridis")
            axes[line, place].set_title(f"{name}\n{what}", fontsize="small")
            label = ("column", "row") if place == 0 else ("codebook", "codebook")
            axes[line, place].set(xlabel=label[0], ylabel=label[1])
            figure.colorbar(image, ax=axes[line, place], label="nats")
    return _image(figure)


def loss_bands(item: Item, scale: Scale, book: ResultsBook) -> Image.Image | None:
    """Loss against M, one band per quantizer between its smallest and its largest K; the paper's bands dotted."""
    panels = [
        (word, figure, rows)
        for word, figure in (("l2", "mse_normalized"), ("ce", "nll_nats_per_dim"))
        if (rows := [row for row in item.rows if f"-{word}-" in row.name and book.of(row, scale)])
    ]
    if not panels:
        return None
    figure = new_figure(4.6 * len(panels), 3.8)
    for axes, (word, name, rows) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for quantizer in ("depthwise", "shared"):
            own = [row for row in rows if row.name.endswith(quantizer)]
            ours = [(row, measured.mean) for row in own if (measured := book.figure(row, scale, name))]
            papers = [(row, row.paper[name]) for row in own if name in row.paper]
            _draw_band(axes, _edges(ours), COLOURS[quantizer], quantizer)
            _draw_band(axes, _edges(papers), COLOURS[quantizer], f"{quantizer}, paper", is_papers=True)
        axes.set_xticks(sorted({row.options["num_codebooks"] for row in rows}))
        axes.set(xlabel="codebooks M", ylabel={"l2": "L2, normalised space", "ce": "nats/dim"}[word], title=word)
        _scale_axis(axes, is_log=word == "l2")
        axes.legend(frameon=False)
    return _image(figure)


def _edges(losses: Sequence[tuple[Row, float]]) -> dict[int, tuple[float, float]]:
    """The lowest and the highest loss of some rows over all K, by M in ascending order."""
    of_m: dict[int, list[float]] = {}
    for row, loss in losses:
        of_m.setdefault(row.options["num_codebooks"], []).append(loss)
    return {m: (min(of_m[m]), max(of_m[m])) for m in sorted(of_m)}


def _draw_band(
    axes, edges: Mapping[int, tuple[float, float]], colour: str, label: str, is_papers: bool = False
) -> None:
    if not edges:
        return
    lowest, highest = zip(*edges.values(), strict=True)
    style = {"linestyle": ":"} if is_papers else {"marker": "o", "markersize": 3}
    if not is_papers:
        axes.fill_between(list(edges), lowest, highest, color=colour, alpha=0.25, linewidth=0)
    axes.plot(list(edges), highest, color=colour, linewidth=1, label=label, **style)
    axes.plot(list(edges), lowest, color=colour, linewidth=1, **style)


def curves(item: Item, scale: Scale, book: ResultsBook) -> Image.Image | None:
    """Validation figures during training, a panel per likelihood; the shared run's best as a dotted line."""
    shown = [(row, result) for row in item.rows if (result := book.first(row, scale))]
    words = sorted({row.name.split("-")[-2] for row, _ in shown}, key=["l2", "ce", "mix"].index)
    if not words:
        return None
    figure = new_figure(4.2 * len(words), 3.4)
    for axes, word in zip(np.atleast_1d(figure.subplots(1, len(words))), words, strict=True):
        for row, result in shown:
            if row.name.split("-")[-2] != word:
                continue
            name = "mse_normalized" if word == "l2" else "nll_bits_per_dim"
            quantizer = row.name.split("-")[-1]
            axes.plot(result.curve["step"], result.curve[name], color=COLOURS[quantizer], label=quantizer)
            if quantizer == "shared":
                axes.axhline(min(result.curve[name]), color=COLOURS[quantizer], linestyle=":", linewidth=1)
        axes.set(xlabel="step", ylabel="L2, normalised space" if word == "l2" else "image, bits/dim", title=word)
        _scale_axis(axes, is_log=word == "l2")
        axes.legend(frameon=False)
    return _image(figure)


def rate_distortion(item: Item, scale: Scale, book: ResultsBook) -> Image.Image | None:
    """PSNR against bits per pixel, quantizers and codecs."""
    figure = new_figure(7.0, 5.0)
    axes = figure.add_subplot()
    for quantizer, colour in COLOURS.items():
        for name, style in ((quantizer, "-"), (f"{quantizer}3x", "--")):
            points = rate_distortion_points(item, book, scale, name)
            _draw_line(axes, points, name, color=colour, marker="o", linestyle=style)
    for codec, colour in CODECS.items():
        for arrangement, style in (("mosaic", "-"), ("files", ":")):
            points = rate_distortion_points(item, book, scale, f"{codec}-{arrangement}")
            _draw_line(axes, points, f"{codec}, {arrangement}", color=colour, linestyle=style, linewidth=1)
    if not axes.lines:
        return None
    axes.set(xlabel="bits per pixel", ylabel="PSNR, dB", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    return _image(figure)


def _scale_axis(axes, *, is_log: bool) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5, where wanted."""
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_line(axes, points: Sequence[tuple[float, float]], label: str, **style) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)


def _image(figure) -> Image.Image:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return Image.open(stream)


def _labelled(strips: Sequence[Image.Image], label: str) -> Image.Image:
    picture = _stacked(strips)
    canvas = Image.new("RGB", (picture.width, picture.height + LABEL_PX), "white")
    canvas.paste(picture, (0, LABEL_PX))
    ImageDraw.Draw(canvas).text((2, 4), label, fill="black", font=ImageFont.load_default(16))
    return canvas


def _stacked(strips: Sequence[Image.Image]) -> Image.Image:
    canvas = Image.new("RGB", (max(strip.width for strip in strips), sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        canvas.paste(strip, (0, top))
        top += strip.height
    return canvas
