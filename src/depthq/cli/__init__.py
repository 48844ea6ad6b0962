"""The command line: one module per verb."""

from depthq.cli.main import main

__all__ = ["main"]
