"""docs/reproduction.md and its pictures, from results alone: nothing on the page is typed by hand."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from depthq.files import replacing
from depthq.units import nats_to_bits
from studies.dq_paper import pictures
from studies.dq_paper.comparison import (
    CONFIDENCE,
    Pair,
    StepsToMatch,
    codec_rows,
    pairs_of,
    rate_at_quality,
    rate_of,
    steps_to_match,
    with_partners,
)
from studies.dq_paper.data_sets import DATA_SETS
from studies.dq_paper.declared import ITEMS, Item, Row, find_item
from studies.dq_paper.findings import findings
from studies.dq_paper.results import Result, ResultsStore
from studies.dq_paper.row_results import ENOUGH_SEEDS, DeclaredResults, Measured, RowResults, SpreadGroup
from studies.dq_paper.scales import SCALES

METRICS = {
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
"""By likelihood, the metric whose spread is shown, and its unit."""
PICTURED = {
    "figure1": pictures.side_by_side,
    "figure3": pictures.decoupling,
    "figure4": pictures.levels_alone,
    "figure5": pictures.loss_bands,
    "convergence": pictures.curves,
    "rate_distortion": pictures.rate_distortion,
}
"""What draws an item's picture or plot."""

Lines = list[str]


def render(store: ResultsStore, docs: Path) -> list[Path]:
    """Write reproduction.md, findings.md and their pictures into a folder.

    Damaged results, and those that no row declares, are named in warnings and left out.

    Returns:
        The files written.

    Raises:
        OSError: If they cannot be written.
        ValueError: If there are no results.
    """
    declared = DeclaredResults(store)
    if not declared.all():
        raise ValueError(f"{store.folder} must hold results; got none; run python -m studies.dq_paper ITEM")
    lines, drawn = _preface(declared), {}
    for item, results in _shown(declared):
        lines += [*_section(item, results), *_not_run(item, results)]
        if item.name in PICTURED and (picture := PICTURED[item.name](item, results)):
            name = f"reproduction-{item.name}-{results.scale_name}.png"
            drawn[docs / "img" / name] = picture
            lines += ["", f"![{item.title}](img/{name})"]
    pages = {docs / "reproduction.md": "\n".join(lines) + "\n", docs / "findings.md": _findings(declared)}
    for file, picture in drawn.items():  # only now that all is drawn and written down
        with replacing(file) as stream:
            picture.save(stream, "PNG")
    for file, text in pages.items():
        with replacing(file) as stream:
            stream.write(text.encode())
    return [*drawn, *pages]


def tables(rows: Sequence[tuple[Item, Row]], scale_name: str, store: ResultsStore) -> str:
    """The page's sections of some items, with some of their rows and those that these are compared with.

    Args:
        rows: As `studies.dq_paper.choose_rows` gives them.
        scale_name: One of `SCALES`.
        store: Where the results are.
    """
    results = DeclaredResults(store).at(scale_name)
    chosen: dict[str, list[Row]] = {}
    for item, row in rows:
        chosen.setdefault(item.name, []).append(row)
    lines: Lines = []
    for name, own in chosen.items():
        item = find_item(name)
        lines += _section(replace(item, rows=tuple(with_partners(item, own))), results)
        lines += ["Its figure: --render draws it."] if name in PICTURED else []
    return "\n".join(lines).strip()


def _section(item: Item, results: RowResults) -> Lines:
    heading = f"{item.title}, scale {results.scale_name}" if _has_scale(item) else item.title
    lines = _SECTIONS.get(item.name, _compared_with_the_paper)(item, results)
    return ["", f"## {heading}", "", item.protocol.strip(), "", *lines, *_effort(item, results)]


def _shown(declared: DeclaredResults) -> Iterator[tuple[Item, RowResults]]:
    """Items that have results, each with those of the scales at which it has some; those without a scale once."""
    by_scale = [declared.at(name) for name in SCALES]
    for item in map(find_item, ITEMS):
        trained = [row for row in item.rows if row.has_scale]
        others = [row for row in item.rows if not row.has_scale]
        shown = [results for results in by_scale if any(map(results.of, trained))]
        if not shown and any(map(by_scale[0].of, others)):
            shown = by_scale[:1]
        for results in shown:
            yield item, results


def _has_scale(item: Item) -> bool:
    return any(row.has_scale for row in item.rows)


def _findings(declared: DeclaredResults) -> str:
    """Of every scale that has results, the one that most items have first."""
    scales = Counter(results.scale_name for item, results in _shown(declared) if _has_scale(item))
    names = [name for name, _ in scales.most_common()] or list(SCALES)[:1]
    return findings([declared.at(name) for name in names])


def _preface(declared: DeclaredResults) -> Lines:
    shown = {results.scale_name for item, results in _shown(declared) if _has_scale(item)}
    used, unused = [name for name in SCALES if name in shown], [name for name in SCALES if name not in shown]
    return [
        "# Reproduction of the paper's tables and figures",
        "",
        "Written by `python -m studies.dq_paper --render` from the files in `studies/dq_paper/results/`; not to be",
        "edited. What follows from it: [findings.md](findings.md). Once its file is deleted,",
        "`python -m studies.dq_paper ITEM --rows ROW` runs any row anew.",
        "",
        _circumstances(declared.all()),
        "",
        *(f"- scale `{name}`: {SCALES[name].protocol}" for name in used),
        f"- no results at scale {' or '.join(f'`{name}`' for name in unused)}",
        *(line for name in used for line in _clearness(declared.at(name))),
    ]


def _circumstances(results: Sequence[Result]) -> str:
    """Where and in how much time all of them were made, and of which images."""
    devices = sorted(Counter(map(_device, results)).items(), key=lambda counted: (-counted[1], counted[0]))
    hours = sum(result.made["seconds"] for result in results) / 3600
    commits = sorted({str(result.made["commit"]) for result in results})
    return (
        f"{len(results)} results, {hours:.1f} hours in all (of a row that was interrupted: since it last went on); "
        f"{', '.join(f'{count} on {device}' for device, count in devices)}; commits {', '.join(commits)}. "
        "Mean ± standard deviation over seeds, their number in brackets where there are several. Figures are of all "
        "test images after the last step; the paper picks the best test loss, which flatters."
    )


def _clearness(results: RowResults) -> Lines:
    """When a difference counts, and the spreads that this rests on."""
    rows = [
        [quantizer, likelihood, f"{spread.deviation:.2g}", unit, str(spread.degrees_of_freedom)]
        for likelihood, (metric, unit) in SPREADS.items()
        for quantizer in pictures.COLOURS
        if (spread := results.spread(metric, SpreadGroup("cifar10", likelihood, quantizer)))
    ]
    return [
        "",
        f"A difference is clear, at scale `{results.scale_name}`, if Welch's two-sided t-test says so at "
        f"{CONFIDENCE:.0%}. Rows of fewer than {ENOUGH_SEEDS} seeds take the standard deviation of a run from all rows "
        "of their quantizer, likelihood and data set that have several seeds; where there are none, nothing is clear. "
        "On CIFAR-10:",
        "",
        *table(["quantizer", "likelihood", "deviation of a run", "of", "degrees of freedom"], rows),
    ]


def _device(result: Result) -> str:
    made = result.made
    return f"{made['device']} ({made['threads']} of {made['cores']} cores)"


def _compared_with_the_paper(item: Item, results: RowResults) -> Lines:
    """Depthwise against shared, ours and the paper's, for each metric that rows of the item have; then the rate."""
    lines: Lines = []
    for name in item.metrics:
        pairs = list(pairs_of(item, results, name))
        if any(pair.depthwise or pair.shared for pair in pairs):
            word = "higher" if name in HIGHER else "lower"
            quality = {pair.name: pair for pair in pairs_of(item, results, "psnr_db")} if name in SQUARED else {}
            lines += [f"**{METRICS[name]}**", "", *_pair_table(pairs, quality), "", _direction(pairs, word), ""]
    return lines + _rate_table(item, results)


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


def _effort(item: Item, results: RowResults) -> Lines:
    """How long the item's networks were trained, in epochs and in time."""
    trained = [result for row in item.rows if row.has_scale for result in results.of(row)]
    if not trained:
        return []
    epochs = sorted({_epochs(result) for result in trained})
    seconds: dict[str, list[float]] = {}
    for result in trained:
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


def _rate_table(item: Item, results: RowResults) -> Lines:
    """What a likelihood is worth once the codes are paid for."""
    rows = [row for row in item.rows if results.metric(row, "total_bits_per_dim")]
    if not rows:
        return []
    names = ("nll_nats_per_dim", "nll_bits_per_dim", "code_bits_per_dim", "total_bits_per_dim")
    head = ["row", "image, nats/dim", "image, bits/dim", "codes, bits/dim", "total, bits/dim"]
    head += ["paper: image, nats/dim", "image, bits/dim", "total, bits/dim"]
    cells = (
        [row.name, *(cell(results.metric(row, name)) for name in names), *_papers_rate(row, results)] for row in rows
    )
    return ["**With the cost of the codes** (uniform prior)", "", *table(head, cells)]


def _papers_rate(row: Row, results: RowResults) -> list[str]:
    """The paper's likelihood in nats and in bits, and with the codes, which cost as much as ours."""
    nats, codes = row.paper.get("nll_nats_per_dim"), results.metric(row, "code_bits_per_dim")
    if nats is None or codes is None:
        return [""] * 3
    return [number(nats), number(nats_to_bits(nats)), number(nats_to_bits(nats) + codes.mean)]


def _not_run(item: Item, results: RowResults) -> Lines:
    missing = [row.name for row in item.rows if not results.of(row)]
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


def _convergence(item: Item, results: RowResults) -> Lines:
    head = [
        "row",
        "figure",
        "shared: best",
        "at step",
        "depthwise is there by step",
        "measured every",
        "share of steps",
    ]
    return table(head, map(_convergence_cells, steps_to_match(item, results)))


def _convergence_cells(steps: StepsToMatch) -> list[str]:
    return [
        steps.name,
        METRICS[steps.metric],
        number(steps.best),
        str(steps.best_step),
        str(steps.matched_step or "not reached"),
        str(steps.interval),
        f"{steps.matched_step / steps.best_step:.0%}" if steps.matched_step else "",
    ]


def _progressive(item: Item, results: RowResults) -> Lines:
    names = ("nll_bits_per_dim", "code_bits_per_dim", "total_bits_per_dim")
    rows = []
    for row in item.rows:
        result = results.first(row)
        if result is None:
            continue
        steps = result.experiment["training"]["steps"]
        full_size = DATA_SETS[result.experiment["data"]].shape[-1]
        for stage in result.figures.get("stages") or [{"image_size": full_size} | result.figures]:
            cells = [f"{stage[name]:.4g}" for name in names]
            rows.append([row.name, f"{stage['image_size']} x {stage['image_size']}", str(steps), *cells])
    return table(["row", "images", "steps", "image, bits/dim", "codes, bits/dim", "total, bits/dim"], rows)


def _side_by_side(item: Item, results: RowResults) -> Lines:
    names = (
        "code_bits_per_pixel",
        "mse_normalized",
        "psnr_db",
        "ssim",
        "mean_entropy_nats",
        "mean_mutual_information_nats",
    )
    rows = [row for row in item.rows if results.of(row)]
    head = ["row", "bits/pixel", "L2", "PSNR, dB", "SSIM", "entropy, nats", "mutual information, nats"]
    return table(head, ([row.name, *(cell(results.metric(row, name)) for name in names)] for row in rows))


def _rate_distortion(item: Item, results: RowResults) -> Lines:
    """Quantizers, with what JPEG XL needs at their PSNR by all of the item's rows; then codecs."""
    jpeg_xl, networks, codecs = _jpeg_xl_rows(item.name), [], []
    for row in item.rows:
        bits, quality = rate_of(row, results), results.metric(row, "psnr_db")
        if not bits or not quality:
            continue
        if row.kind == "codec":
            codecs.append([row.name, cell(bits), cell(quality)])
        else:
            rates = [rate_at_quality(rows, results, quality.mean) for rows in jpeg_xl]
            networks.append([row.name, cell(bits), cell(quality), *map(number, rates)])
    head = ["row", "bits/pixel", "PSNR, dB"]
    lines = []
    if networks:
        lines += table([*head, "JPEG XL at this PSNR, mosaic, bits/pixel", "files"], networks)
        lines += ["", "JPEG XL's rates are linear between the qualities measured.", ""]
    if codecs:
        lines += ["<details><summary>The codecs</summary>", "", *table(head, codecs), "", "</details>"]
    return lines


def _jpeg_xl_rows(item_name: str) -> list[list[Row]]:
    """Of the whole item, whatever is shown of it: as a mosaic, and as files."""
    return [codec_rows(find_item(item_name), "JXL", arrangement) for arrangement in ("mosaic", "files")]


def _density(item: Item, results: RowResults) -> Lines:
    head = ["row", "L_DQ, held out", "standardised", "entropy, nats", "corrected", "standardised, training"]
    head += ["paper: L_DQ", "entropy, nats"]
    names = ("mse", "mse_standardized", "entropy_nats", "entropy_miller_madow_nats")
    rows = []
    for row in item.rows:
        result = results.first(row)
        ours = [""] * 5
        if result is not None:
            ours = [_spread(result.figures["held_out"][name]) for name in names]
            ours.append(_spread(result.figures["training"]["mse_standardized"]))
        if result is not None or row.paper:
            rows.append([row.name, *ours, *(_papers_spread(row, name) for name in ("mse", "entropy_nats"))])
    return table(head, rows)


def _papers_spread(row: Row, name: str) -> str:
    return f"{row.paper[name]:.3g} ± {row.paper[f'{name}_deviation']:.1g}" if name in row.paper else ""


def _spread(metric: dict[str, float | None]) -> str:
    mean, deviation = metric["mean"], metric["deviation"]
    assert mean is not None
    return _with_deviation(mean, deviation) if deviation else f"{mean:.4g}"


def _pictures_only(item: Item, results: RowResults) -> Lines:
    return []


_SECTIONS: dict[str, Callable[[Item, RowResults], Lines]] = {
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


def cell(metric: Measured | None) -> str:
    """A metric with its spread; empty where there is none."""
    if metric is None:
        return ""
    if not metric.deviation:  # of one seed, or the same in all
        return f"{metric.mean:.4g}"
    return f"{_with_deviation(metric.mean, metric.deviation)} ({metric.seeds})"


def _with_deviation(mean: float, deviation: float) -> str:
    """The deviation with one digit, two if the first is 1; the mean with as many decimals."""
    exponent = math.floor(math.log10(deviation))
    decimals = max(0, -exponent + (deviation < 2 * 10**exponent))
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def number(value: float | None) -> str:
    """Three digits; empty where there is none."""
    return "" if value is None else f"{value:.3g}"
