"""What a source knows of an image besides its pixels."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Which image of its source it is, and the label that it has there."""

    id: str
    """Tells it from all other images of the source, whatever the split."""
    label: int | str | None = None
