"""Past the paper: other quantizers, image codecs, and training through growing image sizes."""

from collections.abc import Iterator

from studies.dq_paper.comparison import codec_rows, pairs_of, rate_at_quality, sign_of_difference
from studies.dq_paper.declared import Row, find_item
from studies.dq_paper.findings.finding import SQUARED_ERROR, Finding, all_or_none
from studies.dq_paper.markdown import cell
from studies.dq_paper.row_results import RowResults
from studies.dq_paper.scales import SHORT

CODECS = ("JXL", "WEBP", "JPEG")
CODES = {
    "mean_mutual_information_shuffle_nats": "Mutual information of two codebooks, shuffle-corrected, nats",
    "mean_entropy_nats": "Entropy of a code, nats",
}


def others_at_equal_bits(results: RowResults) -> Iterator[Finding]:
    rows = find_item("equal_bits").rows
    for times in sorted({row.settings["times_steps"] for row in rows}):
        yield from _ranked([row for row in rows if row.has(times_steps=times)], results)


def _ranked(rows: list[Row], results: RowResults) -> Iterator[Finding]:
    """Quantizers by their error after the same number of steps."""
    errors = {row.name: metric for row in rows if (metric := results.metric(row, SQUARED_ERROR))}
    if len(errors) < 2:
        return
    order = sorted(errors, key=lambda name: errors[name].mean)
    best, *others = order
    behind = [name for name in others if sign_of_difference(errors[name], errors[best]) > 0]
    shared = {row.name: results.metric(row, "mean_mutual_information_nats") for row in rows}
    information = ", ".join(f"{name} {metric.mean:.3f}" for name in order if (metric := shared[name]))
    steps = rows[0].experiment(results.scale, seed=0).training.steps  # type: ignore[attr-defined]
    ranking = ", ".join(f"{name} {errors[name].mean:.4f}" for name in order)
    yield Finding(
        f"Other quantizers in the same auto-encoder, at the same 35 bits per position, after {steps:,} steps",
        "new",
        f"Squared error, lowest first: {ranking}. Clearly above {best}: {', '.join(behind) or 'none'}. All have "
        "depthwise's training; nothing was tuned for any other."
        + (f" Mean plug-in mutual information of two codebooks, nats: {information}." if information else ""),
        f"equal_bits --rows {' '.join(row.name for row in rows if row.name in errors)}",
    )


def beside_codecs(results: RowResults) -> Iterator[Finding]:
    rows = [row for row in find_item("rate_distortion").rows if row.quantizer == "depthwise"]
    compared = [words for row in rows if (words := _beside_codecs(row, results))]
    if compared:
        yield Finding(
            "Depthwise codes beside image codecs",
            "new",
            "Bits per pixel at the same PSNR on CIFAR-10, codecs on the mosaic of all images, linear between the "
            f"qualities measured: {'; '.join(compared)}. One network each, whose PSNR varies by some tenths of a dB "
            "from seed to seed. As single files of 32 x 32, codecs cost more, see the plot. The tokenizer's codes are "
            "counted at log2 K bits, its weights not at all; it was trained on such images, the codecs on none.",
            "rate_distortion",
        )


def _beside_codecs(row: Row, results: RowResults) -> str:
    """ "" where the row has not been run, or no codec has its PSNR."""
    measured = all_or_none(results.metric(row, name) for name in ("psnr_db", "code_bits_per_pixel"))
    if not measured:
        return ""
    (quality, rate), item = measured, find_item("rate_distortion")
    rates = {name: rate_at_quality(codec_rows(item, name, "mosaic"), results, quality.mean) for name in CODECS}
    codecs = ", ".join(f"{name.lower()} {bits:.2f}" for name, bits in rates.items() if bits)
    return f"{row.name} ({quality.mean:.1f} dB) {rate.mean:.2f}, {codecs}" if codecs else ""


def growing_sizes(results: RowResults) -> Iterator[Finding]:
    rows = find_item("progressive").rows
    if totals := all_or_none(results.metric(row, "total_bits_per_dim") for row in rows):
        grown, once, *equal = totals
        words = {-1: "clearly better than", 0: "not to be told from", 1: "clearly worse than"}
        yield Finding(
            "One model through growing image sizes",
            "new",
            f"64 x 64 behind 32 x 32 and 16 x 16 ends at {cell(grown)} bits/dim in all. From scratch at 64 x 64, with "
            f"as many steps as that last stage: {cell(once)}; at equal cost, in steps of 16 images {cell(equal[0])}, "
            f"in as many steps, of 7 images, {cell(equal[1])}. Growing is {words[sign_of_difference(grown, once)]} the "
            f"first, {words[sign_of_difference(grown, equal[0])]} the second and "
            f"{words[sign_of_difference(grown, equal[1])]} the third.",
            "progressive",
        )


def longer(results: RowResults) -> Iterator[Finding]:
    """At the scale of the long runs alone: what has changed since the short ones."""
    item = find_item("length")
    if results.scale_name != item.scale:
        return
    short = results.at(SHORT)
    pairs = {
        scale: {pair.name: pair for pair in pairs_of(item, scale, SQUARED_ERROR) if pair.is_compared}
        for scale in (short, results)
    }
    ratios = [
        f"{name} {pairs[short][name].ratio:.2f} to {pair.ratio:.2f} (the paper, 400 epochs: {pair.paper_ratio:.2f})"
        for name, pair in pairs[results].items()
        if name in pairs[short]
    ]
    if not ratios:
        return
    steps = [scale.training.steps for scale in (short.scale, results.scale)]
    told = [f"Squared error, depthwise over shared: {', '.join(ratios)}."]
    for name, words in CODES.items():
        changes = [
            f"{row.name} {before.mean:.2f} to {after.mean:.2f}"
            for row in item.rows
            if (before := short.metric(row, name)) and (after := results.metric(row, name))
        ]
        told += [f"{words}: {', '.join(changes)}."] if changes else []
    yield Finding(
        f"From {steps[0]:,} to {steps[1]:,} steps",
        "new",
        f"{' '.join(told)} One seed at {steps[1]:,} steps.",
        item.name,
    )


BEYOND = (others_at_equal_bits, beside_codecs, growing_sizes, longer)
