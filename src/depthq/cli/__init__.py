"""The command line: one module per verb."""

from depthq.cli.main import main, run_command

__all__ = ["main", "run_command"]
