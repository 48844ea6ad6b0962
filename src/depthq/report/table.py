"""Headline metrics of codes as a plain table, one column per run."""

from collections.abc import Callable, Mapping

from depthq.analysis.summary import CodeSummary
from depthq.units import nats_to_bits


def comparison_table(summaries: Mapping[str, CodeSummary]) -> str:
    """Mean entropy, perplexity, usage and mutual information of each level, then of all levels together.

    Args:
        summaries: By the run's name. "-" stands where one run has no such metric, or it was left out of the counts;
            what none can have has no row.
    """
    runs = list(summaries.values())
    rows = [["", *summaries]]
    num_levels = max(len(run.levels) for run in runs)
    for level in range(num_levels):
        has_pairs = any(len(of_level.codebook_sizes) > 1 for run in runs for of_level in run.levels[level : level + 1])
        rows += [
            [f"level {level}: {name}", *(_number(of(run, level)) if level < len(run.levels) else "-" for run in runs)]
            for name, of in (EACH_LEVEL | PAIRS_OF_A_LEVEL if has_pairs else EACH_LEVEL).items()
        ]
    metrics = ACROSS_LEVELS | ALL_LEVELS if num_levels > 1 else ALL_LEVELS
    rows += [[name, *(_number(of(run)) for run in runs)] for name, of in metrics.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _bits(nats: float | None) -> float | None:
    return None if nats is None else nats_to_bits(nats)


EACH_LEVEL: dict[str, Callable[[CodeSummary, int], float | None]] = {
    "mean entropy of a code, bits": lambda run, level: _bits(run.levels[level].mean_entropy_nats),
    "mean perplexity": lambda run, level: _mean(run.levels[level].perplexity),
    "mean usage, %": lambda run, level: 100 * _mean(run.levels[level].usage),
}
PAIRS_OF_A_LEVEL: dict[str, Callable[[CodeSummary, int], float | None]] = {
    "mean MI, bits, plug-in": lambda run, level: _bits(run.plugin.mean_within_level_nats[level]),
    "mean MI, bits, shuffle": lambda run, level: _bits(run.shuffle.mean_within_level_nats[level]),
    "mean MI, bits, Miller-Madow": lambda run, level: _bits(run.miller_madow.mean_within_level_nats[level]),
}
ACROSS_LEVELS: dict[str, Callable[[CodeSummary], float | None]] = {
    "mean MI across levels, bits, plug-in": lambda run: _bits(run.plugin.mean_across_levels_nats),
    "mean MI across levels, bits, shuffle": lambda run: _bits(run.shuffle.mean_across_levels_nats),
    "mean MI across levels, bits, Miller-Madow": lambda run: _bits(run.miller_madow.mean_across_levels_nats),
}
ALL_LEVELS: dict[str, Callable[[CodeSummary], float | None]] = {
    "total correlation, bits, at least, plug-in": lambda run: _bits(run.plugin.total_correlation_lower_nats),
    "total correlation, bits, at least, shuffle": lambda run: _bits(run.shuffle.total_correlation_lower_nats),
    "total correlation, bits, at least, Miller-Madow": lambda run: _bits(run.miller_madow.total_correlation_lower_nats),
    "total correlation, bits, at most, plug-in": lambda run: _bits(run.plugin.total_correlation_upper_nats),
}
