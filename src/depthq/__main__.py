from depthq.cli import main
