"""Which images of a source are meant."""

from typing import Literal

Split = Literal["train", "test", "all"]
"""Those to train on, those to test on, which are never the same, or both together."""
