"""docs/findings.md: the claims, sorted by whether they hold."""

from collections.abc import Sequence

from studies.dq_paper.book import ResultsBook
from studies.dq_paper.findings.beyond import BEYOND
from studies.dq_paper.findings.claims import CLAIMS
from studies.dq_paper.findings.features import FEATURES
from studies.dq_paper.findings.finding import Finding, Test
from studies.dq_paper.findings.omissions import OMISSIONS
from studies.dq_paper.scales import SCALES

HEADINGS = {
    "held": "What held up",
    "partly": "What held up in part",
    "undecided": "What our runs cannot tell",
    "failed": "What did not",
    "units": "Units and omissions",
    "new": "Past the paper",
}
"""By verdict, in the order of the page."""
AT_EACH_SCALE: tuple[Test, ...] = (*CLAIMS, *BEYOND)
ONCE: tuple[Test, ...] = (*FEATURES, *OMISSIONS)
"""The same at every scale."""


def findings(book: ResultsBook, scale_names: Sequence[str]) -> str:
    """The page: claims without results are left out.

    Args:
        book: The results.
        scale_names: Keys of `SCALES`, in the order to show. What has no scale is told with the first.
    """
    lines = [
        "# Findings",
        "",
        "Written by `python -m studies.dq_paper --render` from the files in `studies/dq_paper/results/`, verdicts "
        "included; not to be edited. All rows are in [reproduction.md](reproduction.md), which also says when a "
        "difference counts as clear; how to read the figures is in [metrics.md](metrics.md).",
    ]
    for number, name in enumerate(scale_names):
        tests = (*AT_EACH_SCALE, *ONCE) if number == 0 else AT_EACH_SCALE
        lines += _at_scale(book, name, tests, suffix="" if len(scale_names) == 1 else f", scale {name}")
    return "\n".join(lines) + "\n"


def _at_scale(book: ResultsBook, scale_name: str, tests: Sequence[Test], suffix: str) -> list[str]:
    scale = SCALES[scale_name]
    found = [finding for test in tests for finding in test(scale_name, book)]
    lines = [
        "",
        f"Scale `{scale_name}`: {scale.protocol}. A claim about many rows holds if it clearly does in every row that "
        f"was run. {scale.caveat}".strip(),
    ]
    for verdict, heading in HEADINGS.items():
        of_this_kind = [finding for finding in found if finding.verdict == verdict]
        lines += ["", f"## {heading}{suffix}"] if of_this_kind else []
        for finding in of_this_kind:
            lines += _told(finding, scale_name)
    return lines


def _told(finding: Finding, scale_name: str) -> list[str]:
    command = f"python -m studies.dq_paper {finding.command} --scale {scale_name}"
    return ["", f"### {finding.claim}", "", finding.evidence, *(["", f"`{command}`"] if finding.command else [])]
