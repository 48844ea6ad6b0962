"""The sections of docs/reproduction.md: what each item's rows found, beside the paper's."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median, stdev

from depthq.units import nats_to_bits
from studies.dq_paper.comparison import (
    Pair,
    StepsToMatch,
    capacity,
    codec_rows,
    joint_entropy,
    pairs_of,
    rate_at_quality,
    rate_of,
    share_used,
    steps_to_match,
)
from studies.dq_paper.data_sets import DATA_SETS
from studies.dq_paper.declared import Item, Row, find_item
from studies.dq_paper.markdown import Lines, cell, number, table, with_deviation
from studies.dq_paper.results import Result
from studies.dq_paper.row_results import RowResults
from studies.dq_paper.scales import SHORT

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
OVERFITTED = 0.01
"""By what share a network must have been better before its end to be told of."""
HIGHER = ("mean_entropy_nats",)
"""Of which the paper claims that depthwise has more; of all others, less."""


def section(item: Item, results: RowResults) -> Lines:
    """An item's heading, its protocol, and what its rows found."""
    heading = f"{item.title}, scale {results.scale_name}" if has_scale(item) else item.title
    lines = _SECTIONS.get(item.name, _compared_with_the_paper)(item, results)
    return ["", f"## {heading}", "", item.protocol.strip(), "", *lines, *_effort(item, results)]


def has_scale(item: Item) -> bool:
    """Whether any of its rows trains a network."""
    return any(row.has_scale for row in item.rows)


def _compared_with_the_paper(item: Item, results: RowResults) -> Lines:
    """Depthwise against shared, ours and the paper's, for each metric that rows of the item have; then the rate."""
    lines: Lines = []
    for name in item.metrics:
        pairs = list(pairs_of(item, results, name))
        if any(pair.depthwise or pair.shared for pair in pairs):
            word = "higher" if name in HIGHER else "lower"
            quality = {pair.name: pair for pair in pairs_of(item, results, "psnr_db")} if name in SQUARED else {}
            lines += [f"**{METRICS[name]}**", "", *_pair_table(pairs, quality), "", _direction(pairs, word), ""]
    return lines + _rate_table(item, results) + _overfitting(item, results)


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
    return table(head, (_pair_cells(pair, quality) for pair in pairs))


def _pair_cells(pair: Pair, quality: Mapping[str, Pair]) -> list[str]:
    cells = [pair.name, cell(pair.depthwise), cell(pair.shared), number(pair.ratio), _side(pair)]
    if quality:  # of the rows that were run
        of_pair = quality.get(pair.name)
        cells += [cell(of_pair.depthwise), cell(of_pair.shared)] if of_pair else ["", ""]
    as_ours = pair.is_as_in_paper if pair.is_compared else None
    cells += map(number, (pair.paper_depthwise, pair.paper_shared, pair.paper_ratio))
    return [*cells, {True: "yes", False: "no", None: ""}[as_ours]]


def _overfitting(item: Item, results: RowResults) -> Lines:
    """Rows that were better on test images before their end, with the step and the figure there; or that none was."""
    curves = {row.name: result.curve for row in item.rows if (result := results.first(row))}
    losses = {name: curve["nll_bits_per_dim"] for name, curve in curves.items() if "nll_bits_per_dim" in curve}
    told = []
    for name, of_row in losses.items():
        if min(of_row) < (1 - OVERFITTED) * of_row[-1]:
            best = of_row.index(min(of_row))
            step = curves[name]["step"][best]
            told.append(f"{name}, {of_row[best]:.3g} bits/dim at step {step}, {of_row[-1]:.3g} at the end")
    if not losses:
        return []
    share = f"{100 * OVERFITTED:g} %"
    return [
        "",
        f"Better on test images before their end, image given codes, by over {share}: {'; '.join(told) or 'none'}.",
    ]


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


def rows_not_run(item: Item, results: RowResults) -> Lines:
    """The names of those, why they were not, and what runs them, out of the way."""
    missing = [row.name for row in item.rows if not results.of(row)]
    if not missing:
        return []
    used = sorted({row.options.get("data", "") for row in item.rows if row.name in missing})
    to_give = [f"{name}=FOLDER" for name in used if name in DATA_SETS and not DATA_SETS[name].source]
    command = f"python -m studies.dq_paper {item.name} --scale {results.scale_name}"
    command += f" --data {' '.join(to_give)}" if to_give else ""
    return [
        "",
        f"<details><summary>{len(missing)} of {len(item.rows)} rows not run</summary>",
        "",
        f"{', '.join(missing)}",
        "",
        f"{item.not_run} What runs them: `{command}`.".strip(),
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
    """Each stage of each row, the mean and deviation over seeds."""
    names = ("nll_bits_per_dim", "code_bits_per_dim", "total_bits_per_dim")
    rows = []
    for row in item.rows:
        for stages in zip(*map(_stages, results.of(row)), strict=True):
            size, steps = stages[0]["image_size"], stages[0]["steps"]
            cells = [_over_seeds([stage[name] for stage in stages]) for name in names]
            rows.append([row.name, f"{size} x {size}", str(steps), *cells, str(len(stages))])
    return table(["row", "images", "steps", "image, bits/dim", "codes, bits/dim", "total, bits/dim", "seeds"], rows)


def _stages(result: Result) -> list[dict]:
    """The figures of each stage; a training from scratch has one."""
    steps = result.experiment["training"]["steps"]
    full_size = DATA_SETS[result.experiment["data"]].shape[-1]
    stages = result.figures.get("stages") or [{"image_size": full_size} | result.figures]
    return [{"steps": steps} | stage for stage in stages]


def _over_seeds(values: Sequence[float]) -> str:
    return with_deviation(fmean(values), stdev(values)) if len(set(values)) > 1 else f"{values[0]:.4g}"


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


def _length(item: Item, results: RowResults) -> Lines:
    """Each row at the scale that it is declared for and at this longer one, and what each quantizer gains on shared."""
    short = results.at(SHORT)
    steps = [scale.training.steps for scale in (short.scale, results.scale)]
    names = ("mse_normalized", "mean_entropy_nats", "mean_mutual_information_shuffle_nats")
    words = ("L2", "entropy, nats", "mutual information, nats")
    rows = [row for row in item.rows if results.of(row)]
    head = ["row", *(f"{word}, {count:,} steps" for word in words for count in steps)]
    head += [f"share used, at most, {count:,}" for count in steps]
    cells = [
        [
            row.name,
            *(cell(scale.metric(row, name)) for name in names for scale in (short, results)),
            *(number(share_used(scale.first(row))) for scale in (short, results)),
        ]
        for row in rows
    ]
    lines = [*table(head, cells), "", "**Depthwise over shared, L2**", ""]
    own = Item(name=item.name, title="", protocol="", rows=tuple(rows))
    pairs = {
        scale.scale_name: {pair.name: pair for pair in pairs_of(own, scale, names[0])} for scale in (short, results)
    }
    ratios = [
        [name, number(pairs[SHORT][name].ratio), number(pair.ratio), number(pair.paper_ratio)]
        for name, pair in pairs[results.scale_name].items()
        if pair.ratio is not None and not pair.is_same_network
    ]
    return [*lines, *table(["row", *(f"{count:,} steps" for count in steps), "paper, 400 epochs"], ratios)]


def _capacity(item: Item, results: RowResults) -> Lines:
    head = ["row", "M ln K, nats", "joint entropy, nats: at least", "at most", "share used: at least", "at most"]
    rows = []
    for row in item.rows:
        if (result := results.first(row)) and (bounds := joint_entropy(result)):
            low, high = bounds
            whole = capacity(result)
            rows.append([row.name, f"{whole:.4g}", *map(number, (low, high, low / whole, high / whole))])
    return table(head, rows)


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
    return with_deviation(mean, deviation) if deviation else f"{mean:.4g}"


def _pictures_only(item: Item, results: RowResults) -> Lines:
    return []


_SECTIONS: dict[str, Callable[[Item, RowResults], Lines]] = {
    "table2": _density,
    "convergence": _convergence,
    "progressive": _progressive,
    "equal_bits": _side_by_side,
    "which_quantizer": _side_by_side,
    "length": _length,
    "capacity": _capacity,
    "rate_distortion": _rate_distortion,
    "figure1": _pictures_only,
    "figure3": _pictures_only,
    "figure4": _pictures_only,
    "figure5": _pictures_only,
}
"""How the items are shown that are no comparison of depthwise and shared rows."""
