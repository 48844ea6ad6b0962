"""docs/reproduction.md and its figures, from results alone: nothing on the page is typed by hand."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from depthq.files import replacing
from depthq.units import nats_to_bits
from studies.dq_paper import pictures
from studies.dq_paper.book import ENOUGH_SEEDS, Measured, ResultsBook
from studies.dq_paper.comparison import CONFIDENCE, Pair, base_of, convergence, pairs_of, rate_at_quality
from studies.dq_paper.data_sets import DATA_SETS
from studies.dq_paper.declared import ITEMS, Item, Row, find_item
from studies.dq_paper.findings import findings
from studies.dq_paper.results import Result, ResultsStore
from studies.dq_paper.scales import SCALES, Scale

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
SQUARED = ("mse_normalized",)
"""Beside which PSNR is shown, which tells the same in the images' own units."""
HIGHER = ("mean_entropy_nats",)
"""Of which the paper claims that depthwise has more; of all others, less."""
SPREADS = {
    "l2": ("mse_normalized", "squared error, relative"),
    "categorical": ("nll_nats_per_dim", "nats/dim"),
    "logistic_mixture": ("nll_nats_per_dim", "nats/dim"),
}
"""By likelihood, the figure whose spread is shown, and its unit."""
PICTURED = {
    "figure1": pictures.side_by_side,
    "figure3": pictures.decoupling,
    "figure4": pictures.levels_alone,
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
        raise ValueError(f"{store.folder} must hold results; got none; run python -m studies.dq_paper ITEM")
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
        rows: As `studies.dq_paper.choose_rows` gives them.
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
        trained = [row for row in item.rows if row.has_scale]
        scales = [name for name, scale in SCALES.items() if any(book.of(row, scale) for row in trained)]
        others = [row for row in item.rows if not row.has_scale]
        anywhere = next(iter(SCALES))
        if not scales and any(book.of(row, SCALES[anywhere]) for row in others):
            scales = [anywhere]
        for name in scales:
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
    shown = {name for item, name in _shown(book) if _has_scale(item)}
    used, unused = [name for name in SCALES if name in shown], [name for name in SCALES if name not in shown]
    return [
        "# Reproduction of the paper's tables and figures",
        "",
        "Written by `python -m studies.dq_paper --render` from the files in `studies/dq_paper/results/`; not to be",
        "edited. What follows from it: [findings.md](findings.md). Once its file is deleted,",
        "`python -m studies.dq_paper ITEM --rows ROW` runs any row anew.",
        "",
        f"{len(results)} results, {hours:.1f} hours in all (of a row that was interrupted: since it last went on); "
        f"{', '.join(f'{count} on {device}' for device, count in devices.items())}; "
        f"commits {', '.join(sorted(commits))}. Mean ± standard deviation over seeds, "
        "their number in brackets where there are several. Figures are of all test images after the last step; the "
        "paper picks the best test loss, which flatters.",
        "",
        *(f"- scale `{name}`: {SCALES[name].protocol}" for name in used),
        f"- no results at scale {' or '.join(f'`{name}`' for name in unused)}",
        *(line for name in used for line in _clearness(name, book)),
    ]


def _clearness(scale_name: str, book: ResultsBook) -> Lines:
    """When a difference counts, and the spreads that this rests on."""
    rows = [
        [quantizer, likelihood, f"{spread.deviation:.2g}", unit, str(spread.degrees_of_freedom)]
        for likelihood, (figure, unit) in SPREADS.items()
        for quantizer in pictures.COLOURS
        if (spread := book.spread(figure, (scale_name, "cifar10", likelihood, quantizer)))
    ]
    return [
        "",
        f"A difference is clear, at scale `{scale_name}`, if Welch's two-sided t-test says so at {CONFIDENCE:.0%}. "
        f"Rows of fewer than {ENOUGH_SEEDS} seeds take the standard deviation of a run from all rows of their "
        "quantizer, likelihood and data set that have several seeds; where there are none, nothing is clear. On "
        "CIFAR-10:",
        "",
        *table(["quantizer", "likelihood", "deviation of a run", "of", "degrees of freedom"], rows),
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
            word = "higher" if name in HIGHER else "lower"
            quality = {pair.name: pair for pair in pairs_of(item, scale, book, "psnr_db")} if name in SQUARED else {}
            lines += [f"**{FIGURES[name]}**", "", *_pair_table(pairs, quality), "", _direction(pairs, word), ""]
    return lines + _rate_table(item, scale, book)


def _pair_table(pairs: Sequence[Pair], quality: Mapping[str, Pair]) -> Lines:
    """A row for each pair; with the PSNR of both where it is given, by the pair's name."""
    head = [
        "row",
        "depthwise",
        "shared",
        "ratio",
        "depthwise is",
        *(["PSNR, dB: depthwise", "shared"] if quality else []),
    ]
    head += ["paper: depthwise", "shared", "ratio", "as ours"]
    return table(head, (_pair_cells(pair, quality.get(pair.name) if quality else None) for pair in pairs))


def _pair_cells(pair: Pair, quality: Pair | None) -> list[str]:
    cells = [pair.name, cell(pair.depthwise), cell(pair.shared), number(pair.ratio), _side(pair)]
    if quality:
        cells += [cell(quality.depthwise), cell(quality.shared)]
    as_ours = pair.is_as_in_paper if pair.is_compared else None
    cells += map(number, (pair.paper_depthwise, pair.paper_shared, pair.paper_ratio))
    return [*cells, {True: "yes", False: "no", None: ""}[as_ours]]


def _side(pair: Pair) -> str:
    """On which side of the shared row the depthwise one is."""
    if not pair.is_compared:
        return "the same" if pair.is_same_network else ""
    return ("lower" if pair.direction < 0 else "higher") + ("" if pair.sign else ", not clearly")


def _direction(pairs: Sequence[Pair], word: str) -> str:
    """In how many rows depthwise is lower or higher, in how many clearly so, and how many agree with the paper."""
    compared = [pair for pair in pairs if pair.is_compared]
    same = sum(pair.is_same_network and pair.depthwise is not None for pair in pairs)
    apart = f" Not counted: {same} with M = 1, where both are one network." if same else ""
    if not compared:
        return f"No row has been run for both quantizers.{apart}"
    wanted = 1 if word == "higher" else -1
    so = sum(pair.direction == wanted for pair in compared)
    clearly = sum(pair.sign == wanted for pair in compared)
    opposite = sum(pair.sign == -wanted for pair in compared)
    text = f"Depthwise is the {word} in {so} of {len(compared)} rows that both quantizers were run for, clearly so in "
    text += f"{clearly}; clearly the other way round in {opposite}"
    known = [pair.is_as_in_paper for pair in compared if pair.is_as_in_paper is not None]
    if known:
        text += f". Of {len(known)} that the paper has too, {sum(known)} have the paper's direction"
    return f"{text}.{apart}"


def _effort(item: Item, scale: Scale, book: ResultsBook) -> Lines:
    """How long the item's networks were trained, in epochs and in time."""
    results = [result for row in item.rows if row.has_scale for result in book.of(row, scale)]
    if not results:
        return []
    epochs = sorted({_epochs(result) for result in results})
    seconds: dict[str, list[float]] = {}
    for result in results:
        seconds.setdefault(result.experiment["model"]["likelihood"], []).append(result.made["seconds"])
    times = ", ".join(f"{likelihood} {median(times):.0f} s" for likelihood, times in seconds.items())
    return [
        "",
        f"Trained for {' or '.join(f'{count:.3g}' for count in epochs)} epochs; a run with its measurement took, in "
        f"the median: {times}.",
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
    head += ["paper: image, nats/dim", "image, bits/dim", "total, bits/dim"]
    cells = (
        [row.name, *(cell(book.figure(row, scale, name)) for name in names), *_papers_rate(row, scale, book)]
        for row in rows
    )
    return ["**With the cost of the codes** (uniform prior)", "", *table(head, cells)]


def _papers_rate(row: Row, scale: Scale, book: ResultsBook) -> list[str]:
    """The paper's likelihood in nats and in bits, and with the codes, which cost as much as ours."""
    nats, codes = row.paper.get("nll_nats_per_dim"), book.figure(row, scale, "code_bits_per_dim")
    if nats is None or codes is None:
        return [""] * 3
    return [number(nats), number(nats_to_bits(nats)), number(nats_to_bits(nats) + codes.mean)]


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
    """Quantizers, with what JPEG XL needs at their PSNR by all of the item's rows; then codecs."""
    whole, networks, codecs = find_item(item.name), [], []
    for row in item.rows:
        quality = book.figure(row, scale, "psnr_db")
        bits = book.figure(row, scale, "bits_per_pixel" if row.kind == "codec" else "code_bits_per_pixel")
        if not bits or not quality:
            continue
        if row.kind == "codec":
            codecs.append([row.name, cell(bits), cell(quality)])
        else:
            rates = [rate_at_quality(whole, book, scale, f"jxl-{how}", quality.mean) for how in ("mosaic", "files")]
            networks.append([row.name, cell(bits), cell(quality), *map(number, rates)])
    head = ["row", "bits/pixel", "PSNR, dB"]
    lines = []
    if networks:
        lines += table([*head, "JPEG XL at this PSNR, mosaic, bits/pixel", "files"], networks)
        lines += ["", "JPEG XL's rates are linear between the qualities measured.", ""]
    if codecs:
        lines += ["<details><summary>The codecs</summary>", "", *table(head, codecs), "", "</details>"]
    return lines


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
            rows.append([row.name, *ours, *(_papers_spread(row, name) for name in ("mse", "entropy_nats"))])
    return table(head, rows)


def _papers_spread(row: Row, name: str) -> str:
    return f"{row.paper[name]:.3g} ± {row.paper[f'{name}_deviation']:.1g}" if name in row.paper else ""


def _spread(figure: dict[str, float | None]) -> str:
    mean, deviation = figure["mean"], figure["deviation"]
    assert mean is not None
    return _with_deviation(mean, deviation) if deviation else f"{mean:.4g}"


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
    if not figure.deviation:  # of one seed, or the same in all
        return f"{figure.mean:.4g}"
    return f"{_with_deviation(figure.mean, figure.deviation)} ({figure.seeds})"


def _with_deviation(mean: float, deviation: float) -> str:
    """The deviation with one digit, two if the first is 1; the mean with as many decimals."""
    exponent = math.floor(math.log10(deviation))
    decimals = max(0, -exponent + (deviation < 2 * 10**exponent))
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def number(value: float | None) -> str:
    """Three digits; empty where there is none."""
    return "" if value is None else f"{value:.3g}"
