"""docs/findings.md: the claims, sorted by whether they hold."""

from collections.abc import Iterable, Sequence

from studies.dq_paper.findings.beyond import BEYOND
from studies.dq_paper.findings.claims import CLAIMS
from studies.dq_paper.findings.features import FEATURES
from studies.dq_paper.findings.finding import Finding, Test
from studies.dq_paper.findings.omissions import OMISSIONS
from studies.dq_paper.row_results import RowResults
from studies.real_rate import table

HEADINGS = {
    "held": "What held up",
    "partly": "What held up in part",
    "undecided": "What our runs cannot tell",
    "failed": "What did not",
    "units": "Units and omissions",
    "new": "Past the paper",
}
"""By verdict, in the order of the page."""
VERDICTS = {"held": "held", "partly": "in part", "undecided": "cannot tell", "failed": "**not held**"}
"""In the table on top."""
ROW_NAMES = (
    "A row's name says what was trained. M5-K128-l2-depthwise has five depthwise codebooks of 128 codes and squared "
    "error as its loss; ce is the categorical likelihood, mix the mixture of logistics. K256x128 has two levels, the "
    "coarse one first. Shared is the paper's VQ: all codebooks see the same vector."
)
AT_EACH_SCALE: tuple[Test, ...] = (*CLAIMS, *BEYOND)
ONCE: tuple[Test, ...] = (*FEATURES, *OMISSIONS)
"""The same at every scale."""


def findings(results_by_scale: Sequence[RowResults], rates: Sequence[dict] = ()) -> str:
    """The page: claims without results are left out.

    Args:
        results_by_scale: In the order to show. What has no scale is shown with the first.
        rates: Rows of `studies.real_rate`, shown behind the table of claims.
    """
    lines = [
        "# Findings",
        "",
        "What the paper claims, and what came of it here. Sections behind the claims give the numbers; the last one "
        "the terms.",
    ]
    for number, results in enumerate(results_by_scale):
        tests = (*AT_EACH_SCALE, *ONCE) if number == 0 else AT_EACH_SCALE
        suffix = "" if len(results_by_scale) == 1 else f", scale {results.scale_name}"
        found = [finding for test in tests for finding in test(results)]
        lines += _verdicts(found, suffix)
        lines += (
            ["", "![loss against the number of codebooks](img/reproduction-figure5-cpu.png)"] if number == 0 else []
        )
        lines += _at_real_rate(rates) if number == 0 and rates else []
        lines += _by_verdict(found, results, suffix)
    lines += ["", "## Where the figures come from", ""]
    lines += [
        "Written by `python -m studies.dq_paper --render` from the files in `studies/dq_paper/results/`, verdicts "
        "included; not to be edited. All rows are in [reproduction.md](reproduction.md), which also says when a "
        "difference counts as clear. How to read the figures is in [metrics.md](metrics.md).",
        "",
        ROW_NAMES,
    ]
    for results in results_by_scale:
        scale = results.scale
        lines += [
            "",
            f"Scale `{results.scale_name}`: {scale.protocol}. A claim about many rows holds if it clearly does in "
            f"every row that was run. {scale.caveat}".strip(),
        ]
    return "\n".join(lines) + "\n"


def _at_real_rate(rates: Sequence[dict]) -> list[str]:
    steps, of_priors = ({row[name] for row in rates} for name in ("steps", "prior_steps"))
    return [
        "",
        "## At equal real rate",
        "",
        "The paper's tables set as many codes beside as many codes. But codes that repeat each other take fewer bits "
        "than M log2 K. What they take is told by a prior that is trained on them, one that sees the codes before, "
        "of the same position and of others. Bits per position of 8 x 8, CIFAR-10's test images, K = 128; networks of "
        f"{_numbers(steps)} steps, priors of {_numbers(of_priors)}, one seed each; a prior that is trained for longer "
        "would need fewer bits. Depthwise's error between two of its runs is interpolated, linear in its logarithm.",
        "",
        table(list(rates)),
        "",
        "![squared error over real bits](img/real-rate.png)",
        "",
        "`python -m studies.real_rate RUNS --data cifar10/ --priors priors/ --out studies/real_rate.json`, RUNS the "
        "folders under `runs/` of `python -m studies.dq_paper length --scale cpu-long --results results/ --runs "
        "runs/`: where results go to a folder of their own, rows are trained though the study has them.",
    ]


def _numbers(numbers: Iterable[int]) -> str:
    return " or ".join(f"{number:,}" for number in sorted(numbers))


def _by_verdict(found: Sequence[Finding], results: RowResults, suffix: str) -> list[str]:
    lines = []
    for verdict, heading in HEADINGS.items():
        of_this_kind = [finding for finding in found if finding.verdict == verdict]
        lines += ["", f"## {heading}{suffix}"] if of_this_kind else []
        for finding in of_this_kind:
            lines += _section(finding, results.scale_name)
    return lines


def _verdicts(found: Sequence[Finding], suffix: str) -> list[str]:
    """The table of claims."""
    told = [finding for verdict in VERDICTS for finding in found if finding.verdict == verdict and finding.ours]
    if not told:
        return []
    lines = ["", f"## Claims{suffix}", "", "| claim | paper | ours | |", "| --- | --- | --- | --- |"]
    return lines + [
        f"| {finding.claim} | {finding.paper} | {finding.ours} | {VERDICTS[finding.verdict]} |" for finding in told
    ]


def _section(finding: Finding, scale_name: str) -> list[str]:
    command = f"python -m studies.dq_paper {finding.command} --scale {scale_name}"
    return ["", f"### {finding.claim}", "", finding.evidence, *(["", f"`{command}`"] if finding.command else [])]
