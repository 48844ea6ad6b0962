"""What a finding is, and the words that evidence is put in."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from studies.dq_paper.comparison import Pair
from studies.dq_paper.row_results import Measured, RowResults

SQUARED_ERROR, NATS = "mse_normalized", "nll_nats_per_dim"


@dataclass(frozen=True)
class Finding:
    """A claim, put to the test."""

    claim: str
    verdict: str
    """A key of `studies.dq_paper.findings.page.HEADINGS`."""
    evidence: str
    command: str = ""
    """What measures it, behind "python -m studies.dq_paper"; "" where the paper's own figures are all it takes."""
    paper: str = ""
    """In a few words what the paper says, for the table on top of the page."""
    ours: str = ""
    """The same of our runs; "" keeps the finding out of that table."""


Test = Callable[[RowResults], Iterator[Finding]]
"""Looks at one claim at a scale, and yields nothing where its rows have not been run."""


def verdict(signs: Sequence[int]) -> str:
    """Of comparisons that came out as claimed (1), against the claim (-1), or too close to tell (0)."""
    if all(sign > 0 for sign in signs):
        return "held"
    if any(sign > 0 for sign in signs):
        return "partly"
    return "failed" if any(sign < 0 for sign in signs) else "undecided"


def count_signs(signs: Iterable[int], positive: str, negative: str) -> str:
    """How many signs are 1, -1 and 0, in words: "clearly lower in 3 of 5 rows, higher in 1, too close to tell in 1"."""
    count = Counter(signs)
    words = f"clearly {positive} in {count[1]} of {count.total()} rows"
    words += f", clearly {negative} in {count[-1]}" if count[-1] else ""
    return words + (f", too close to tell in {count[0]}" if count[0] else "")


def count_sides(pairs: Sequence[Pair], word: str) -> str:
    """On which side of shared depthwise is, and how clearly: "lower in 5 of 5 rows, clearly so in 3"."""
    wanted = 1 if word == "higher" else -1
    so = sum(pair.direction == wanted for pair in pairs)
    clear = Counter(pair.sign * wanted for pair in pairs)
    words = f"{word} in {so} of {len(pairs)} rows, clearly so in {clear[1]}"
    return words + (f", clearly not so in {clear[-1]}" if clear[-1] else "")


def in_numbers(pair: Pair) -> str:
    """A pair's means, ours and the paper's: "M5-K128-l2: 0.020 against 0.080"."""
    assert pair.depthwise
    assert pair.shared
    ours = f"{pair.name}: {pair.depthwise.mean:.3f} against {pair.shared.mean:.3f}"
    return ours + (f" (paper: {pair.paper_depthwise} against {pair.paper_shared})" if pair.paper_ratio else "")


def all_or_none(metrics: Iterable[Measured | None]) -> list[Measured]:
    """The metrics; none of them if any is not there."""
    measured = list(metrics)
    known = [metric for metric in measured if metric is not None]
    return known if len(known) == len(measured) else []
