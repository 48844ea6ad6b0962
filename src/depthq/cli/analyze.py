"""Measure and draw what codes say and share: entropy, usage, mutual information, and what each level knows.

examples:
  depthq analyze runs/demo --out analysis/
  depthq analyze runs/dq --compare runs/vq --data cifar10/ --out dq-and-vq/

Writes analysis.json, table.txt and figures (PNG) into a new folder. All images of the split (or the first --limit) are
counted; those in the pictures are drawn from them at random, the same ones every time. --compare counts another model
over the same images, and draws both with the same scales. docs/analysis.md tells how to read it all.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from depthq.analysis import CodeCounts
from depthq.cli.model_and_data import ModelAndData, add_model_and_data, load, model_and_data
from depthq.files import new_folder
from depthq.models import DQAE
from depthq.report import AnalyzedRun, ImageSample, comparison_table, draw_figures, summarize_codes
from depthq.run_folder import load_model, load_run_settings

IMAGES_DRAWN = 8


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    compare: Path | None
    limit: int | None
    out: Path


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser)
    parser.add_argument("--compare", type=Path, help="another model, to be shown beside this one")
    parser.add_argument("--limit", type=PositiveInt, help="only the first so many images")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    options = parser.parse_args(arguments)
    if options.compare and options.compare.resolve() == options.model.resolve():
        raise ValueError(f"--compare must be another model; got {options.compare} again; leave it out")
    return Settings(model_and_data(options), options.compare, options.limit, options.out)


def run(settings: Settings) -> None:
    with new_folder(settings.out) as folder:
        runs, sample = _count(settings)
        table = comparison_table({run.label: run.summary for run in runs})
        (folder / "analysis.json").write_text(json.dumps(_content(settings, runs), indent=2) + "\n")
        (folder / "table.txt").write_text(table + "\n")
        for name, picture in draw_figures(runs, sample.images).items():
            picture.save(folder / f"{name}.png")
    print(f"{settings.out}: codes of {runs[0].summary.images} images\n\n{table}")
    for run in runs:
        for warning in run.summary.warnings:
            print(f"\nnote on {run.label}: {warning}")


def _count(settings: Settings) -> tuple[list[AnalyzedRun], ImageSample]:
    """One pass over the images, which all models see."""
    model, batches = load(settings.source, limit=settings.limit)
    folders, models = [settings.source.model], [model]
    if settings.compare:
        folders.append(settings.compare)
        models.append(load_model(settings.compare).to(settings.source.device))
    counts = [_new_counts(folder, model) for folder, model in zip(folders, models, strict=True)]
    sample = ImageSample(IMAGES_DRAWN)
    for images in batches:
        sample.update(images)
        for model, counted in zip(models, counts, strict=True):
            counted.update(model.encode(images).to("cpu"))
    parts = zip(_labels(folders), models, counts, strict=True)
    return [AnalyzedRun(label, model, counted, summarize_codes(counted)) for label, model, counted in parts], sample


def _new_counts(folder: Path, model: DQAE) -> CodeCounts:
    if not model.codebook_sizes:
        raise ValueError(f"{folder} must have a quantizer; its model has none; analyze one that has codes")
    return CodeCounts(model.codebook_sizes)


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or whole paths where these are the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _content(settings: Settings, runs: Sequence[AnalyzedRun]) -> dict:
    source = settings.source
    return {
        "data": source.data or load_run_settings(source.model)["data"],
        "split": source.split,
        "runs": [{"run": run.label, "config": asdict(run.model.config)} | asdict(run.summary) for run in runs],
    }
