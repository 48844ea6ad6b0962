"""Evaluation: honest figures of a model on a set of images, and pictures to look at."""

from depthq.evaluation.grid import image_grid, reconstruct, reconstruction_grid, to_picture
from depthq.evaluation.metrics import Evaluation, Evaluator, LevelFigures, psnr_db

__all__ = [
    "Evaluation",
    "Evaluator",
    "LevelFigures",
    "image_grid",
    "psnr_db",
    "reconstruct",
    "reconstruction_grid",
    "to_picture",
]
