"""Past the paper: other quantizers, image codecs, and training through growing image sizes."""

from collections.abc import Iterator

from studies.dq_paper.book import ResultsBook
from studies.dq_paper.comparison import rate_at_quality, sign_of_difference
from studies.dq_paper.declared import Row, find_item
from studies.dq_paper.findings.finding import SQUARED_ERROR, Finding
from studies.dq_paper.scales import SCALES

CODECS = ("jxl", "webp", "jpeg")


def others_at_equal_bits(scale: str, book: ResultsBook) -> Iterator[Finding]:
    rows = find_item("equal_bits").rows
    for times in sorted({row.options.get("times_steps", 1) for row in rows}):
        yield from _ranked([row for row in rows if row.options.get("times_steps", 1) == times], scale, book)


def _ranked(rows: list[Row], scale: str, book: ResultsBook) -> Iterator[Finding]:
    """Quantizers by their error after the same number of steps."""
    figures = {row.name: book.figure(row, SCALES[scale], SQUARED_ERROR) for row in rows}
    errors = {name: figure for name, figure in figures.items() if figure}
    if len(errors) < 2:
        return
    best, *others = sorted(errors, key=lambda name: errors[name].mean)
    behind = [name for name in others if sign_of_difference(errors[name], errors[best]) > 0]
    shared = {row.name: book.figure(row, SCALES[scale], "mean_mutual_information_nats") for row in rows}
    information = ", ".join(f"{name} {figure.mean:.3f}" for name in (best, *others) if (figure := shared[name]))
    steps = rows[0].experiment(SCALES[scale], seed=0).training.steps  # type: ignore[attr-defined]
    told = ", ".join(f"{name} {errors[name].mean:.4f}" for name in (best, *others))
    yield Finding(
        f"Other quantizers in the same auto-encoder, at the same 35 bits per position, after {steps:,} steps",
        "new",
        f"Squared error, lowest first: {told}. Clearly above {best}: {', '.join(behind) or 'none'}. All have "
        "depthwise's training; nothing was tuned for any other."
        + (f" Mean plug-in mutual information of two codebooks, nats: {information}." if information else ""),
        f"equal_bits --rows {' '.join(row.name for row in rows)}",
    )


def beside_codecs(scale: str, book: ResultsBook) -> Iterator[Finding]:
    item = find_item("rate_distortion")
    told = [
        told
        for row in item.rows
        if row.options.get("quantizer") == "depthwise" and (told := _beside_codecs(row, scale, book))
    ]
    if told:
        yield Finding(
            "Depthwise codes beside image codecs",
            "new",
            "Bits per pixel at the same PSNR on CIFAR-10, codecs on the mosaic of all images, linear between the "
            f"qualities measured: {'; '.join(told)}. One network each, whose PSNR varies by some tenths of a dB from "
            "seed to seed. As single files of 32 x 32, codecs cost more, see the plot. The tokenizer's codes are "
            "counted at log2 K bits, its weights not at all; it was trained on such images, the codecs on none.",
            "rate_distortion",
        )


def _beside_codecs(row: Row, scale: str, book: ResultsBook) -> str:
    """ "" where the row has not been run, or no codec has its PSNR."""
    quality = book.figure(row, SCALES[scale], "psnr_db")
    rate = book.figure(row, SCALES[scale], "code_bits_per_pixel")
    if not quality or not rate:
        return ""
    item = find_item("rate_distortion")
    rates = {name: rate_at_quality(item, book, SCALES[scale], f"{name}-mosaic", quality.mean) for name in CODECS}
    codecs = ", ".join(f"{name} {bits:.2f}" for name, bits in rates.items() if bits)
    return f"{row.name} ({quality.mean:.1f} dB) {rate.mean:.2f}, {codecs}" if codecs else ""


def growing_sizes(scale: str, book: ResultsBook) -> Iterator[Finding]:
    rows = find_item("progressive").rows
    totals = {row.name: book.figure(row, SCALES[scale], "total_bits_per_dim") for row in rows}
    grown, once, twice = (totals[name] for name in ("from-16-to-32", "from-scratch-1x", "from-scratch-2x"))
    if grown and once and twice:
        words = {-1: "clearly better than", 0: "not to be told from", 1: "clearly worse than"}
        yield Finding(
            "One model through growing image sizes",
            "new",
            f"32 x 32 behind 16 x 16 ends at {grown.mean:.3f} bits/dim in all. From scratch at 32 x 32, with as many "
            f"steps as that last stage: {once.mean:.3f}; with as many as both: {twice.mean:.3f}. Growing is "
            f"{words[sign_of_difference(grown, once)]} the former and {words[sign_of_difference(grown, twice)]} the "
            "latter, which costs more: steps at 16 x 16 are a quarter of the work.",
            "progressive",
        )


BEYOND = (others_at_equal_bits, beside_codecs, growing_sizes)
