"""The pictures and plots of docs/reproduction.md, drawn from results."""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from PIL import Image, ImageDraw, ImageFont

from depthq.report.plots import new_figure
from studies.dq_paper.comparison import capacity as code_capacity
from studies.dq_paper.comparison import codec_rows, joint_entropy, pair_name, rate_distortion_points, row_pairs
from studies.dq_paper.declared import Item, Row
from studies.dq_paper.results import Result
from studies.dq_paper.row_results import RowResults

LABEL_PX = 26
BAND_METRICS = {"l2": "mse_normalized", "categorical": "nll_nats_per_dim"}
COLOURS = {"depthwise": "#3b6ea8", "shared": "#d98032", "residual": "#4f9d69", "scalar": "#8c5fa8"}
CODECS = {"JPEG": "#7a7a7a", "WEBP": "#b0875a", "JXL": "#222222"}
STYLES = {1: ":", 3: "-.", 5: "-", 10: "--"}
MARKERS = {1: "v", 3: "s", 5: "o", 10: "^"}
"""By M."""
PAPER_AT = 1.15
"""Where the paper's end points stand, in times of the last step."""
LIKELIHOODS = {"l2": "l2", "categorical": "ce", "logistic_mixture": "mix"}
"""What plots call them, in the order of panels."""


def side_by_side(item: Item, results: RowResults) -> Image.Image | None:
    """For each pair of rows: the first test images, what depthwise makes of them, and what shared makes of them."""
    blocks = []
    for depthwise, shared in row_pairs(item.rows):
        ours = _strips(depthwise, results)
        theirs = _strips(shared, results) if shared else []
        if ours and theirs:
            blocks.append(_labelled([*ours[:2], theirs[1]], f"{pair_name(depthwise)}: original, depthwise, shared"))
    return _stacked(blocks) if blocks else None


def levels_alone(item: Item, results: RowResults) -> Image.Image | None:
    """For each row: the first test images, what becomes of them, and of each level's codes alone."""
    blocks = []
    for row in item.rows:
        if strips := _strips(row, results):
            alone = ", ".join(f"level {level} alone" for level in range(len(strips) - 2))
            blocks.append(_labelled(strips, f"{row.name}: original, all levels, {alone} (the other zero)"))
    return _stacked(blocks) if blocks else None


def _strips(row: Row, results: RowResults) -> list[Image.Image]:
    """The rows of images in a row's stored picture, see `Outcome.picture`; none if there is no picture."""
    result = results.first(row)
    if not (result and result.picture):
        return []
    num_levels = len(result.codes["levels"]) if result.codes else 1
    count = 2 + (num_levels if num_levels > 1 else 0)
    with Image.open(result.picture) as picture:
        whole = picture.convert("RGB")
    edges = [round(whole.height * place / count) for place in range(count + 1)]
    return [whole.crop((0, top, whole.width, bottom)) for top, bottom in pairwise(edges)]


def decoupling(item: Item, results: RowResults) -> Image.Image | None:
    """Entropy at each position, and plug-in mutual information of codebooks, a line per row, on common scales."""
    codes = {row.name: result.codes for row in item.rows if (result := results.first(row)) and result.codes}
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


def loss_bands(item: Item, results: RowResults) -> Image.Image | None:
    """Loss against M, one band per quantizer between its smallest and its largest K; the paper's bands dotted."""
    panels = {
        likelihood: rows
        for likelihood in ("l2", "categorical")
        if (rows := [row for row in item.rows if row.likelihood == likelihood and results.of(row)])
    }
    if not panels:
        return None
    figure = new_figure(4.6 * len(panels), 3.8)
    for axes, (likelihood, rows) in zip(_axes_side_by_side(figure, len(panels)), panels.items(), strict=True):
        for quantizer in ("depthwise", "shared"):
            own, metric = [row for row in rows if row.quantizer == quantizer], BAND_METRICS[likelihood]
            ours = [(row, measured.mean) for row in own if (measured := results.metric(row, metric))]
            papers = [(row, row.paper[metric]) for row in own if metric in row.paper]
            _draw_band(axes, _edges(ours), COLOURS[quantizer], quantizer)
            _draw_band(axes, _edges(papers), COLOURS[quantizer], f"{quantizer}, paper", is_papers=True)
        axes.set_xticks(sorted({row.options["num_codebooks"] for row in rows}))
        _finish_panel(axes, likelihood, "codebooks M", "nats/dim")
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


def curves(item: Item, results: RowResults) -> Image.Image | None:
    """Validation metrics during training, a panel per likelihood; the shared run's best as a dotted line."""
    shown = [(row, result) for row in item.rows if (result := results.first(row))]
    panels = {
        likelihood: own
        for likelihood in LIKELIHOODS
        if (own := [pair for pair in shown if pair[0].has(likelihood=likelihood)])
    }
    if not panels:
        return None
    figure = new_figure(4.2 * len(panels), 3.4)
    for axes, (likelihood, own) in zip(_axes_side_by_side(figure, len(panels)), panels.items(), strict=True):
        for row, result in own:
            _draw_curve(
                axes, str(row.quantizer), result, "mse_normalized" if likelihood == "l2" else "nll_bits_per_dim"
            )
        _finish_panel(axes, likelihood, "step", "image, bits/dim")
    return _image(figure)


def _draw_curve(axes, quantizer: str, result: Result, metric: str) -> None:
    axes.plot(result.curve["step"], result.curve[metric], color=COLOURS[quantizer], label=quantizer)
    if quantizer == "shared":
        axes.axhline(min(result.curve[metric]), color=COLOURS[quantizer], linestyle=":", linewidth=1)


def length(item: Item, results: RowResults) -> Image.Image | None:
    """Error on test images during training, a line per row; the paper's end points at the right edge."""
    shown = [(row, result) for row in item.rows if (result := results.first(row))]
    if not shown:
        return None
    figure = new_figure(8.0, 5.0)
    axes = figure.add_subplot()
    last = max(result.curve["step"][-1] for _, result in shown)
    for row, result in shown:
        colour, num_codebooks = COLOURS[str(row.quantizer)], row.options["num_codebooks"]
        style = STYLES[num_codebooks]
        label = f"{row.quantizer}, M = {num_codebooks}"
        axes.plot(result.curve["step"], result.curve["mse_normalized"], color=colour, linestyle=style, label=label)
        if paper := row.paper.get("mse_normalized"):
            axes.plot([last * PAPER_AT], [paper], color=colour, marker=MARKERS[num_codebooks], linestyle="none")
    axes.set(xlabel="step (at the right edge the paper, 400 epochs)", ylabel="L2, normalised space")
    axes.set(xscale="log", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", ncols=2)
    return _image(figure)


def capacity(item: Item, results: RowResults) -> Image.Image | None:
    """Joint entropy of a position's codes against M, a band per quantizer between its bounds, and what M could tell."""
    figure = new_figure(6.5, 4.5)
    axes = figure.add_subplot()
    most: dict[int, float] = {}
    for quantizer, colour in COLOURS.items():
        bounds: dict[int, tuple[float, float]] = {}
        for row in item.rows:
            result = results.first(row)
            # With M = 1 shared and depthwise are one network.
            is_own = row.quantizer == quantizer or (quantizer == "shared" and row.options["num_codebooks"] == 1)
            if result and is_own and (found := joint_entropy(result)):
                bounds[row.options["num_codebooks"]] = found
                most[row.options["num_codebooks"]] = code_capacity(result)
        _draw_band(axes, dict(sorted(bounds.items())), colour, quantizer)
    if not most:
        return None
    axes.plot(*zip(*sorted(most.items()), strict=True), color="#222222", linestyle=":", label="M ln K")
    axes.set(xlabel="codebooks M", ylabel="joint entropy of a position's codes, nats", xticks=sorted(most))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _image(figure)


def rate_distortion(item: Item, results: RowResults) -> Image.Image | None:
    """PSNR against bits per pixel, quantizers and codecs."""
    figure = new_figure(7.0, 5.0)
    axes = figure.add_subplot()
    for quantizer, colour in COLOURS.items():
        for times, name, style in ((1, quantizer, "-"), (3, f"{quantizer}3x", "--")):
            rows = [row for row in item.rows if row.has(quantizer=quantizer, times_steps=times)]
            points = rate_distortion_points(rows, results)
            _draw_line(axes, points, name, color=colour, marker="o", linestyle=style)
    for codec, colour in CODECS.items():
        for arrangement, style in (("mosaic", "-"), ("files", ":")):
            points = rate_distortion_points(codec_rows(item, codec, arrangement), results)
            _draw_line(axes, points, f"{codec.lower()}, {arrangement}", color=colour, linestyle=style, linewidth=1)
    if not axes.lines:
        return None
    axes.set(xlabel="bits per pixel", ylabel="PSNR, dB", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    return _image(figure)


def _axes_side_by_side(figure, count: int) -> np.ndarray:
    return np.atleast_1d(figure.subplots(1, count))


def _finish_panel(axes, likelihood: str, xlabel: str, ylabel: str) -> None:
    """Names and scales of a likelihood's panel; that of L2 is logarithmic, and `ylabel` is of the others."""
    is_l2 = likelihood == "l2"
    axes.set(xlabel=xlabel, ylabel="L2, normalised space" if is_l2 else ylabel, title=LIKELIHOODS[likelihood])
    if is_l2:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False)


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
