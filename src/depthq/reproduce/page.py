"""docs/reproduction.md and its figures, from results alone: nothing on the page is typed by hand."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from depthq.files import replacing
from depthq.reproduce import pictures
from depthq.reproduce.book import Measured, ResultsBook
from depthq.reproduce.comparison import Pair, convergence, pairs_of, rate_at_quality
from depthq.reproduce.declared import ITEMS, Item, find_item
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
        ValueError: If there are no results.
    """
    book = ResultsBook(store)
    if not book.all():
        raise ValueError(f"{store.folder} must hold results; got none; run some rows with depthq reproduce ITEM")
    written = []
    lines = _preface(book)
    for name, scale_name in _shown(book):
        item, scale = find_item(name), SCALES[scale_name]
        lines += ["", f"## {item.title}, scale {scale_name}", "", item.protocol.strip(), ""]
        lines += _SECTIONS.get(name, _compared_with_the_paper)(item, scale, book)
        lines += _not_run(item, scale, book)
        if name in PICTURED and (figure := PICTURED[name](item, scale, book)):
            file = docs / "img" / f"reproduction-{name}-{scale_name}.png"
            with replacing(file) as stream:
                figure.save(stream, "PNG")
            lines += ["", f"![{item.title}](img/{file.name})"]
            written.append(file)
    pages = {"reproduction.md": "\n".join(lines) + "\n", "findings.md": _findings(book)}
    for file, text in pages.items():
        with replacing(docs / file) as stream:
            stream.write(text.encode())
        written.append(docs / file)
    return written


def _shown(book: ResultsBook) -> Iterable[tuple[str, str]]:
    """Items that have results, each with the scales at which it has some."""
    for name in ITEMS:
        for scale_name, scale in SCALES.items():
            if any(book.of(row, scale) for row in find_item(name).rows):
                yield name, scale_name


def _findings(book: ResultsBook) -> str:
    """Of the scale that most items have results at."""
    scale_name, _ = Counter(name for _, name in _shown(book)).most_common(1)[0]
    return findings(book, SCALES[scale_name], scale_name)


def _preface(book: ResultsBook) -> Lines:
    results = book.all()
    devices, commits = Counter(_device(result) for result in results), {result.made["commit"] for result in results}
    hours = sum(result.made["seconds"] for result in results) / 3600
    used = {name for _, name in _shown(book)}
    return [
        "# Reproduction of the paper's tables and figures",
        "",
        "Written by `depthq reproduce --render` from the files in `results/`; not to be edited. What follows from it:",
        "[findings.md](findings.md). Once its file is deleted, `depthq reproduce ITEM --rows ROW` runs any row anew.",
        "",
        f"{len(results)} results, {hours:.1f} hours in all; "
        f"{', '.join(f'{count} on {device}' for device, count in devices.items())}; "
        f"commits {', '.join(sorted(str(commit) for commit in commits))}. Mean ± standard deviation over seeds, "
        "their number in brackets where there are several.",
        "",
        *(f"- scale `{name}`: {SCALES[name].protocol}" for name in SCALES if name in used),
    ]


def _device(result: Result) -> str:
    made = result.made
    return f"{made['device']} ({made['threads']} of {made['cores']} cores)"


def _compared_with_the_paper(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    """Depthwise against shared, ours and the paper's, for each figure that rows of the item have; then the rate."""
    lines: Lines = []
    names = {name for row in item.rows for name in row.paper} or {"mse_normalized", "nll_nats_per_dim"}
    for name in sorted(names, key=list(FIGURES).index):
        pairs = [pair for pair in pairs_of(item, scale, book, name) if pair.depthwise or pair.shared]
        if pairs:
            lines += [f"**{FIGURES[name]}**", "", *_pair_table(pairs), "", _direction(pairs), ""]
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


def _direction(pairs: Sequence[Pair]) -> str:
    """In how many rows depthwise is the lower, ours and the paper's; M = 1, where both are one network, apart."""
    compared = [pair for pair in pairs if pair.ratio is not None and not pair.is_same_network]
    if not compared:
        return "No row has been run for both quantizers."
    lower = sum(pair.ratio < 1 for pair in compared)  # type: ignore[operator]
    text = f"Depthwise is the lower in {lower} of {len(compared)} rows that both quantizers were run for"
    known = [pair for pair in compared if pair.paper_ratio is not None]
    if known:
        agree = sum((pair.ratio < 1) == (pair.paper_ratio < 1) for pair in known)  # type: ignore[operator]
        text += f"; {agree} of {len(known)} agree with the paper on which is lower"
    return text + "."


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
    return ["", f"Not run at this scale: {', '.join(missing)}."] if missing else []


def _convergence(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    rows = []
    for race in convergence(item, scale, book):
        reached = f"{race.reached_at}" if race.reached_at else "not reached"
        share = f"{race.reached_at / race.steps:.0%}" if race.reached_at else ""
        rows.append([race.name, FIGURES[race.figure], number(race.goal), str(race.goal_at), reached, share])
    head = ["row", "figure", "shared: best", "at step", "depthwise reaches it at step", "of all steps"]
    return table(head, rows)


def _progressive(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    names = ("nll_bits_per_dim", "code_bits_per_dim", "total_bits_per_dim")
    rows = []
    for row in item.rows:
        result = book.first(row, scale)
        if result is None:
            continue
        steps = result.experiment["training"]["steps"]
        for stage in result.figures.get("stages") or [{"image_size": 32} | result.figures]:
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
    rows = []
    for row in item.rows:
        result = book.first(row, scale)
        if result is None:
            continue
        held_out, training = result.figures["held_out"], result.figures["training"]
        names = ("mse", "mse_standardized", "entropy_nats", "entropy_miller_madow_nats")
        ours = [_spread(held_out[name]) for name in names] + [_spread(training["mse_standardized"])]
        rows.append([row.name, *ours, "", ""])
    for row in item.rows:
        if row.paper:
            rows.append(["paper: " + row.name, *[""] * 5, number(row.paper["mse"]), number(row.paper["entropy_nats"])])
    return table(head, rows)


def _spread(figure: dict[str, float]) -> str:
    return f"{figure['mean']:.4g} ± {figure['deviation']:.1g}"


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
