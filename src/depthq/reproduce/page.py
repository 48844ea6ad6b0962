"""docs/reproduction.md and its figures, from results alone: nothing on the page is typed by hand."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from depthq.files import replacing
from depthq.reproduce import pictures
from depthq.reproduce.book import Measured, ResultsBook
from depthq.reproduce.comparison import (
    Pair,
    base_of,
    compared_pairs,
    convergence,
    pairs_of,
    rate_at_quality,
    told_of_clearness,
)
from depthq.reproduce.data_sets import DATA_SETS
from depthq.reproduce.declared import ITEMS, Item, Row, find_item
from depthq.reproduce.findings import findings
from depthq.reproduce.results import Result, ResultsStore
from depthq.reproduce.scales import SCALES, Scale

FIGURES = {
    "mse_normalized": "L2, normalised space",
    "nll_nats_per_dim": "image given codes, nats/dim",
    "nll_bits_per_dim": "image given codes, bits/dim",
    "mean_entropy_nats": "mean entropy of a code, nats",
    "mean_mutual_information_nats": "mean pairwise mutual information, nats, plug-in",
    "mean_mutual_information_shuffle_nats": "the same, shuffle-corrected",
    "mean_mutual_information_miller_madow_nats": "the same, Miller-Madow",
}
"""What is compared with the paper, by the names in results, and in words."""
HIGHER = ("mean_entropy_nats",)
"""Of which the paper claims that depthwise has more; of all others, less."""
PICTURED = {
    "figure1": pictures.reconstructions,
    "figure3": pictures.decoupling,
    "figure4": pictures.reconstructions,
    "figure5": pictures.loss_bands,
    "convergence": pictures.curves,
    "rate_distortion": pictures.rate_distortion,
}
"""What draws an item's figure."""

Lines = list[str]


def render(store: ResultsStore, docs: Path) -> list[Path]:
    """Write reproduction.md, findings.md and their figures into a folder.

    Damaged results, and those that no row declares, are named in warnings and left out.

    Returns:
        The files written.

    Raises:
        OSError: If they cannot be written.
        ValueError: If there are no results.
    """
    book = ResultsBook(store)
    if not book.all():
        raise ValueError(f"{store.folder} must hold results; got none; run some rows with depthq reproduce ITEM")
    lines, figures = _preface(book), {}
    for item, scale_name in _shown(book):
        scale = SCALES[scale_name]
        lines += [*_section(item, scale_name, book), *_not_run(item, scale, book)]
        if item.name in PICTURED and (figure := PICTURED[item.name](item, scale, book)):
            name = f"reproduction-{item.name}-{scale_name}.png"
            figures[docs / "img" / name] = figure
            lines += ["", f"![{item.title}](img/{name})"]
    pages = {docs / "reproduction.md": "\n".join(lines) + "\n", docs / "findings.md": _findings(book)}
    for file, figure in figures.items():  # only now that all is drawn and written down
        with replacing(file) as stream:
            figure.save(stream, "PNG")
    for file, text in pages.items():
        with replacing(file) as stream:
            stream.write(text.encode())
    return [*figures, *pages]


def tables(rows: Sequence[tuple[Item, Row]], scale_name: str, store: ResultsStore) -> str:
    """The page's sections of some items, with some of their rows and those that these are compared with.

    Args:
        rows: As `depthq.reproduce.choose_rows` gives them.
        scale_name: One of `SCALES`.
        store: Where the results are.
    """
    book = ResultsBook(store)
    chosen: dict[str, set[str]] = {}
    for item, row in rows:
        chosen.setdefault(item.name, set()).add(base_of(row))
    lines: Lines = []
    for name, bases in chosen.items():
        item = find_item(name)
        part = replace(item, rows=tuple(row for row in item.rows if base_of(row) in bases))
        lines += _section(part, scale_name, book)
        lines += ["Its figure: --render draws it."] if name in PICTURED else []
    return "\n".join(lines).strip()


def _section(item: Item, scale_name: str, book: ResultsBook) -> Lines:
    scale = SCALES[scale_name]
    heading = f"{item.title}, scale {scale_name}" if _has_scale(item) else item.title
    figures = _SECTIONS.get(item.name, _compared_with_the_paper)(item, scale, book)
    return ["", f"## {heading}", "", item.protocol.strip(), "", *figures, *_effort(item, scale, book)]


def _shown(book: ResultsBook) -> Iterator[tuple[Item, str]]:
    """Items that have results, each with the scales at which it has some; those without a scale once."""
    for item in map(find_item, ITEMS):
        rows = [row for row in item.rows if row.has_scale] or item.rows
        scales = [name for name, scale in SCALES.items() if any(book.of(row, scale) for row in rows)]
        for name in scales if _has_scale(item) else scales[:1]:
            yield item, name


def _has_scale(item: Item) -> bool:
    return any(row.has_scale for row in item.rows)


def _findings(book: ResultsBook) -> str:
    """Of every scale that has results, the one that most items have first."""
    scales = Counter(name for item, name in _shown(book) if _has_scale(item)) or Counter([next(iter(SCALES))])
    return findings(book, [name for name, _ in scales.most_common()])


def _preface(book: ResultsBook) -> Lines:
    results = book.all()
    devices, commits = Counter(map(_device, results)), {str(result.made["commit"]) for result in results}
    hours = sum(result.made["seconds"] for result in results) / 3600
    used = {name for item, name in _shown(book) if _has_scale(item)}
    return [
        "# Reproduction of the paper's tables and figures",
        "",
        "Written by `depthq reproduce --render` from the files in `results/`; not to be edited. What follows from it:",
        "[findings.md](findings.md). Once its file is deleted, `depthq reproduce ITEM --rows ROW` runs any row anew.",
        "",
        f"{len(results)} results, {hours:.1f} hours in all (of a row that was interrupted: since it last went on); "
        f"{', '.join(f'{count} on {device}' for device, count in devices.items())}; "
        f"commits {', '.join(sorted(commits))}. Mean ± standard deviation over seeds, "
        "their number in brackets where there are several. Figures are of all test images after the last step; the "
        "paper picks the best test loss, which flatters.",
        "",
        *(
            f"- scale `{name}`: {SCALES[name].protocol}. {told_of_clearness(book, SCALES[name])}"
            for name in SCALES
            if name in used
        ),
    ]


def _device(result: Result) -> str:
    made = result.made
    return f"{made['device']} ({made['threads']} of {made['cores']} cores)"


def _compared_with_the_paper(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    """Depthwise against shared, ours and the paper's, for each figure that rows of the item have; then the rate."""
    lines: Lines = []
    for name in item.figures:
        pairs = list(pairs_of(item, scale, book, name))
        if any(pair.depthwise or pair.shared for pair in pairs):
            lines += [f"**{FIGURES[name]}**", "", *_pair_table(pairs), ""]
            word = "higher" if name in HIGHER else "lower"
            lines += [_direction(compared_pairs(item, scale, book, name), word), ""]
    return lines + _rate_table(item, scale, book)


def _pair_table(pairs: Sequence[Pair]) -> Lines:
    head = ["row", "depthwise", "shared", "ratio", "paper: depthwise", "shared", "ratio"]
    return table(
        head,
        (
            [
                pair.name,
                cell(pair.depthwise),
                cell(pair.shared),
                number(pair.ratio),
                number(pair.paper_depthwise),
                number(pair.paper_shared),
                number(pair.paper_ratio),
            ]
            for pair in pairs
        ),
    )


def _direction(pairs: Sequence[tuple[Pair, int]], word: str) -> str:
    """In how many rows depthwise is lower or higher, and how many agree; M = 1, where both are one network, apart."""
    if not pairs:
        return "No row has been run for both quantizers."
    wanted = 1 if word == "higher" else -1
    count = Counter(sign * wanted for _, sign in pairs)
    text = f"Depthwise is the {word} in {count[1]} of {len(pairs)} rows that both quantizers were run for"
    text += f", the other way round in {count[-1]}" if count[-1] else ""
    text += f", too close to tell in {count[0]}" if count[0] else ""
    known = [sign * (1 if pair.paper_ratio > 1 else -1) for pair, sign in pairs if pair.paper_ratio is not None]
    if known:
        agreeing = Counter(known)
        text += f"; of {len(known)} that the paper has too, {agreeing[1]} agree with it, {agreeing[-1]} disagree"
        text += f", {agreeing[0]} cannot tell" if agreeing[0] else ""
    return text + "."


def _effort(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    """How long the item's networks were trained, in epochs and in time."""
    results = [result for row in item.rows if row.has_scale for result in book.of(row, scale)]
    if not results:
        return []
    epochs = sorted({_epochs(result) for result in results})
    seconds = [result.made["seconds"] for result in results]
    return [
        "",
        f"Trained for {' or '.join(f'{count:.3g}' for count in epochs)} epochs; a run with its measurement took "
        f"{median(seconds):.0f} s in the middle, {max(seconds)} s at most.",
    ]


def _epochs(result: Result) -> float:
    """Passes over the training images; of each stage if there are several."""
    training, images = result.experiment["training"], DATA_SETS[result.experiment["data"]].train_images
    return training["steps"] * training["batch_size"] / images if images else math.nan


def _rate_table(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    """What a likelihood is worth once the codes are paid for."""
    rows = [row for row in item.rows if book.figure(row, scale, "total_bits_per_dim")]
    if not rows:
        return []
    names = ("nll_nats_per_dim", "nll_bits_per_dim", "code_bits_per_dim", "total_bits_per_dim")
    head = ["row", "image, nats/dim", "image, bits/dim", "codes, bits/dim", "total, bits/dim"]
    cells = ([row.name, *(cell(book.figure(row, scale, name)) for name in names)] for row in rows)
    return ["**With the cost of the codes** (uniform prior)", "", *table(head, cells)]


def _not_run(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    missing = [row.name for row in item.rows if not book.of(row, scale)]
    if not missing:
        return []
    return [
        "",
        f"<details><summary>{len(missing)} of {len(item.rows)} rows not run</summary>",
        "",
        f"{', '.join(missing)}",
        "",
        "</details>",
    ]


def _convergence(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    head = [
        "row",
        "figure",
        "shared: best",
        "at step",
        "depthwise is there by step",
        "measured every",
        "share of steps",
    ]
    rows = [
        [
            race.name,
            FIGURES[race.figure],
            number(race.goal),
            str(race.goal_at),
            str(race.reached_at or "not reached"),
            str(race.every),
            f"{race.reached_at / race.goal_at:.0%}" if race.reached_at else "",
        ]
        for race in convergence(item, scale, book)
    ]
    return table(head, rows)


def _progressive(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    names = ("nll_bits_per_dim", "code_bits_per_dim", "total_bits_per_dim")
    rows = []
    for row in item.rows:
        result = book.first(row, scale)
        if result is None:
            continue
        steps = result.experiment["training"]["steps"]
        full_size = DATA_SETS[result.experiment["data"]].shape[-1]
        for stage in result.figures.get("stages") or [{"image_size": full_size} | result.figures]:
            cells = [f"{stage[name]:.4g}" for name in names]
            rows.append([row.name, f"{stage['image_size']} x {stage['image_size']}", str(steps), *cells])
    return table(["row", "images", "steps", "image, bits/dim", "codes, bits/dim", "total, bits/dim"], rows)


def _side_by_side(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    names = (
        "code_bits_per_pixel",
        "mse_normalized",
        "psnr_db",
        "ssim",
        "mean_entropy_nats",
        "mean_mutual_information_nats",
    )
    rows = [row for row in item.rows if book.of(row, scale)]
    head = ["row", "bits/pixel", "L2", "PSNR, dB", "SSIM", "entropy, nats", "mutual information, nats"]
    return table(head, ([row.name, *(cell(book.figure(row, scale, name)) for name in names)] for row in rows))


def _rate_distortion(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    head = ["row", "bits/pixel", "PSNR, dB", "JPEG XL at this PSNR, mosaic", "files"]
    rows = []
    for row in item.rows:
        bits, quality = book.figure(row, scale, "code_bits_per_pixel"), book.figure(row, scale, "psnr_db")
        if row.kind != "codec" and bits and quality:
            rates = [rate_at_quality(item, book, scale, f"jxl-{how}", quality.mean) for how in ("mosaic", "files")]
            rows.append([row.name, cell(bits), cell(quality), *map(number, rates)])
    return [*table(head, rows), "", "JPEG XL's rates in bits/pixel, linear between the qualities measured."]


def _density(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    head = ["row", "L_DQ, held out", "standardised", "entropy, nats", "corrected", "standardised, training"]
    head += ["paper: L_DQ", "entropy, nats"]
    names = ("mse", "mse_standardized", "entropy_nats", "entropy_miller_madow_nats")
    rows = []
    for row in item.rows:
        result = book.first(row, scale)
        ours = [""] * 5
        if result is not None:
            ours = [_spread(result.figures["held_out"][name]) for name in names]
            ours.append(_spread(result.figures["training"]["mse_standardized"]))
        if result is not None or row.paper:
            rows.append([row.name, *ours, number(row.paper.get("mse")), number(row.paper.get("entropy_nats"))])
    return table(head, rows)


def _spread(figure: dict[str, float | None]) -> str:
    deviation = "" if figure["deviation"] is None else f" ± {figure['deviation']:.1g}"
    return f"{figure['mean']:.4g}{deviation}"


def _pictures_only(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    return []


_SECTIONS: dict[str, Callable[[Item, Scale, ResultsBook], Lines]] = {
    "table2": _density,
    "convergence": _convergence,
    "progressive": _progressive,
    "equal_bits": _side_by_side,
    "rate_distortion": _rate_distortion,
    "figure1": _pictures_only,
    "figure3": _pictures_only,
    "figure4": _pictures_only,
    "figure5": _pictures_only,
}
"""How the items are shown that are no comparison of depthwise and shared rows."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """A Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def cell(figure: Measured | None) -> str:
    """A figure with its spread; empty where there is none."""
    if figure is None:
        return ""
    if figure.deviation is None:
        return f"{figure.mean:.4g}"
    return f"{figure.mean:.4g} ± {figure.deviation:.1g} ({figure.seeds})"


def number(value: float | None) -> str:
    """Three digits; empty where there is none."""
    return "" if value is None else f"{value:.3g}"
