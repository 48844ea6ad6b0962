"""What an experiment is, and what it finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image


@dataclass(frozen=True)
class Outcome:
    """What an experiment found."""

    figures: dict[str, Any]
    """Numbers by name, units in the names; None where a figure does not exist."""
    codes: dict[str, Any] | None = None
    """`CodeSummary` of the test images, as plain data; None for what has no codes."""
    curve: dict[str, list[float]] = field(default_factory=dict)
    """Validation figures during training, and the steps they were taken at."""
    picture: Image.Image | None = None
    """The first test images, what becomes of them, and what becomes of each level alone where there are several."""


class Experiment(Protocol):
    """Plain data that fixes what is measured, and the way to measure it."""

    kind: ClassVar[str]

    def run(self, folder: Path, sources: Mapping[str, str], *, progress: bool) -> Outcome:
        """Measure, keeping work in progress in `folder`, from which a killed run goes on.

        Args:
            folder: The experiment's own; made if it does not exist.
            sources: Where data sets are, by name; those not named come from the hub.
            progress: Whether to show a progress bar.
        """
        ...
