"""Experiments that train a DQ-AE."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor
from torchmetrics import MeanMetric

from depthq.analysis import CodeCounts, CodeSummary, summarize_codes
from depthq.data import evaluation_loader, open_images
from depthq.measure import measure
from depthq.models import DQAE, DQAEConfig, DQAEOutput
from depthq.pixels import image_grid, psnr_db
from depthq.runs import RunFolder, load_model, read_metrics
from depthq.training import DataConfig, RunConfig, TrainingConfig, steps_done, train
from studies.dq_paper.data_sets import open_data_set, resized
from studies.dq_paper.experiment import Outcome

BATCH_SIZE = 64
PICTURED_IMAGES = 8
PICTURED_PIXELS = 512
"""Side by side, at most: of images of 256 x 256 two are pictured, as eight would be megabytes."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Train a DQ-AE on a data set, then measure it on all of its test images."""

    kind: ClassVar[str] = "training"
    data: str
    model: DQAEConfig
    training: TrainingConfig

    def run(self, folder: Path, sources: Mapping[str, str], *, progress: bool) -> Outcome:
        source = open_data_set(self.data, sources)
        return _train_and_measure(self, source, folder, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Progressive:
    """Train one model through growing image sizes: each stage starts from the last one's weights and codebooks.

    Smaller images are the data set's own, box-filtered. Every stage takes `training.steps` steps; the figures are the
    last stage's, and each stage's under "stages".
    """

    kind: ClassVar[str] = "progressive"
    data: str
    image_sizes: tuple[int, ...]
    model: DQAEConfig
    training: TrainingConfig

    def run(self, folder: Path, sources: Mapping[str, str], *, progress: bool) -> Outcome:
        full_size = open_data_set(self.data, sources)
        model, stages, outcome = None, [], Outcome({})
        for size in self.image_sizes:
            source = resized(full_size, size, folder / f"images-{size}")
            stage = folder / f"size={size}"
            outcome = _train_and_measure(self, source, stage, start_from=model, progress=progress)
            stages.append({"image_size": size} | outcome.figures)
            model = load_model(stage)
        return Outcome(outcome.figures | {"stages": stages}, outcome.codes, outcome.curve, outcome.picture)


def _train_and_measure(
    experiment: Training | Progressive, source: str, run: Path, *, start_from: DQAE | None = None, progress: bool
) -> Outcome:
    config = RunConfig(data=DataConfig(data=source), model=experiment.model, training=experiment.training)
    if steps_done(run) < config.training.steps:
        train(config, run, start_from=start_from, progress=progress)
    return _measure(load_model(run), source, _validation_curve(run))


def _measure(model: DQAE, source: str, curve: dict[str, list[float]]) -> Outcome:
    if torch.cuda.is_available():
        model = model.cuda()
    test_images = open_images(source, "test")
    first = next(iter(evaluation_loader(test_images, batch_size=PICTURED_IMAGES, limit=PICTURED_IMAGES)))
    counts = CodeCounts(model.codebook_sizes) if model.codebook_sizes else None
    alone = EachLevelAlone(model)
    measurement = measure(
        model, evaluation_loader(test_images, batch_size=BATCH_SIZE), counts=counts, beside=[alone.update]
    )
    summary = None if counts is None else summarize_codes(counts)
    return Outcome(
        figures=asdict(measurement) | (code_figures(summary) if summary else {}) | alone.figures(),
        codes=asdict(summary) if summary else None,
        curve=curve,
        picture=_picture(model, first.to(model.device)),
    )


class EachLevelAlone:
    """PSNR of what the codes of one level alone decode to (Fig. 4), of models that have several.

    Args:
        model: The model.
    """

    def __init__(self, model: DQAE):
        self.model = model
        sizes = model.codebook_sizes
        self.psnr_db = [MeanMetric().to(model.device) for _ in sizes] if len(sizes) > 1 else []

    def update(self, images: Tensor, output: DQAEOutput) -> None:
        for level, metric in enumerate(self.psnr_db):
            assert output.codes is not None
            metric.update(psnr_db(self.model.decode(output.codes, levels=[level]).float(), images.float()))

    def figures(self) -> dict[str, list[float]]:
        return {"level_alone_psnr_db": [metric.compute().item() for metric in self.psnr_db]} if self.psnr_db else {}


def _validation_curve(run: Path) -> dict[str, list[float]]:
    """What metrics.jsonl says of the test images, by the names of `Measurement`, and the steps it was said at."""
    rows = [row for row in read_metrics(RunFolder(run).metrics) if "validation_mse_normalized" in row]
    names = [name for name in rows[0] if name == "step" or name.startswith("validation_")]
    return {name.removeprefix("validation_"): [row[name] for row in rows] for name in names}


def code_figures(summary: CodeSummary) -> dict[str, float | None]:
    """The headline figures of Sec. 5.2: how much a code says, and how much of it another one says too."""
    entropies = [entropy for level in summary.levels for entropy in level.entropy_nats]
    return {
        "mean_entropy_nats": sum(entropies) / len(entropies),
        "mean_mutual_information_nats": summary.plugin.mean_pairwise_nats,
        "mean_mutual_information_shuffle_nats": summary.shuffle.mean_pairwise_nats,
        "mean_mutual_information_miller_madow_nats": summary.miller_madow.mean_pairwise_nats,
    }


def _picture(model: DQAE, images: Tensor) -> Image.Image:
    images = images[: max(1, PICTURED_PIXELS // images.shape[3])]
    rows = [images, model.reconstruct(images)]
    if model.config.num_levels > 1 and model.codebook_sizes:
        codes = model.encode(images)
        rows += [model.decode(codes, levels=[level]) for level in range(model.config.num_levels)]
    return image_grid(*(row.cpu() for row in rows), columns=PICTURED_IMAGES)
