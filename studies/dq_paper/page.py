"""docs/reproduction.md and its pictures, from results alone: nothing on the page is typed by hand."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from depthq.files import replacing
from studies import real_rate
from studies.dq_paper import pictures
from studies.dq_paper.comparison import CONFIDENCE, with_partners
from studies.dq_paper.declared import ITEMS, Item, Row, find_item
from studies.dq_paper.findings import findings
from studies.dq_paper.markdown import Lines, table
from studies.dq_paper.results import Result, ResultsStore
from studies.dq_paper.row_results import ENOUGH_SEEDS, DeclaredResults, RowResults, SpreadGroup
from studies.dq_paper.scales import SCALES
from studies.dq_paper.sections import has_scale, rows_not_run, section

SPREADS = {
    "l2": ("mse_normalized", "squared error, relative"),
    "categorical": ("nll_nats_per_dim", "nats/dim"),
    "logistic_mixture": ("nll_nats_per_dim", "nats/dim"),
}
"""By likelihood, the metric whose spread is shown, and its unit."""
RATES = Path(real_rate.__file__).with_suffix(".json")
"""What that study has kept, for the top of the findings."""
PICTURED = {
    "figure1": pictures.side_by_side,
    "figure3": pictures.decoupling,
    "figure4": pictures.levels_alone,
    "figure5": pictures.loss_bands,
    "convergence": pictures.curves,
    "length": pictures.length,
    "capacity": pictures.capacity,
    "rate_distortion": pictures.rate_distortion,
}
"""What draws an item's picture or plot."""


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
        lines += [*section(item, results), *rows_not_run(item, results)]
        if item.name in PICTURED and (picture := PICTURED[item.name](item, results)):
            name = f"reproduction-{item.name}-{results.scale_name}.png"
            drawn[docs / "img" / name] = picture
            lines += ["", f"![{item.title}](img/{name})"]
    rates = json.loads(RATES.read_text())
    drawn[docs / "img/real-rate.png"] = real_rate.plot(rates)
    pages = {docs / "reproduction.md": "\n".join(lines) + "\n", docs / "findings.md": _findings(declared, rates)}
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
        lines += section(replace(item, rows=tuple(with_partners(item, own))), results)
        lines += ["Its figure: --render draws it."] if name in PICTURED else []
    return "\n".join(lines).strip()


def _shown(declared: DeclaredResults) -> Iterator[tuple[Item, RowResults]]:
    """Items that have results, each with those of the scales at which it has some; those without a scale once."""
    by_scale = [declared.at(name) for name in SCALES]
    for item in map(find_item, ITEMS):
        trained = [row for row in item.rows if row.has_scale]
        others = [row for row in item.rows if not row.has_scale]
        shown = [
            results
            for results in by_scale
            if any(map(results.of, trained)) and item.scale == _own_scales().get(results.scale_name)
        ]
        if not shown and any(map(by_scale[0].of, others)):
            shown = by_scale[:1]
        for results in shown:
            yield item, results


def _own_scales() -> dict[str, str]:
    """The scales that show one item alone, each with itself."""
    return {item.scale: item.scale for item in map(find_item, ITEMS) if item.scale}


def _findings(declared: DeclaredResults, rates: Sequence[dict]) -> str:
    """Of every scale that has results, the one that most items have first."""
    scales = Counter(results.scale_name for item, results in _shown(declared) if has_scale(item))
    names = [name for name, _ in scales.most_common()] or list(SCALES)[:1]
    return findings([declared.at(name) for name in names], rates)


def _preface(declared: DeclaredResults) -> Lines:
    shown = {results.scale_name for item, results in _shown(declared) if has_scale(item)}
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
