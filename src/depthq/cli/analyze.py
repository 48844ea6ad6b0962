"""Measure and draw what codes say and share: entropy, usage, mutual information, and what each level knows.

examples:
  depthq analyze runs/demo --out analysis/
  depthq analyze runs/dq --compare runs/vq --data cifar10/ --out dq-and-vq/

Writes analysis.json, table.txt and figures (PNG) into a new folder. All images of the split (or the first --limit) are
counted; those in the pictures are drawn from them at random, the same ones every time. --compare counts another model
over the same images, and draws both with the same scales. docs/analysis.md tells how to read it all.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from depthq.analysis import CodeCounts, MutualInformation, summarize_codes
from depthq.analysis.summary import ESTIMATORS
from depthq.cli.model_and_data import ModelAndData, add_model_and_data, load, model_and_data
from depthq.files import new_folder
from depthq.models import DQAE
from depthq.runs import load_model, load_run_settings
from depthq.units import nats_to_bits

if TYPE_CHECKING:
    from depthq.measure import ImageSample
    from depthq.report import AnalyzedRun

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
    from depthq.report import comparison_table, draw_figures  # here, as --help need not wait for it

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


def _count(settings: Settings) -> "tuple[list[AnalyzedRun], ImageSample]":
    """One pass over the images, which all models see."""
    from depthq.measure import ImageSample
    from depthq.report import AnalyzedRun

    model, batches = load(settings.source, limit=settings.limit)
    folders, models = [settings.source.model], [model]
    if settings.compare:
        folders.append(settings.compare)
        models.append(load_model(settings.compare).to(settings.source.device))
        _check_channels(folders, models)
    counts = [_new_counts(folder, model) for folder, model in zip(folders, models, strict=True)]
    sample = ImageSample(IMAGES_DRAWN)
    for images in batches:
        sample.update(images)
        for model, counted in zip(models, counts, strict=True):
            counted.update(model.encode(images).to("cpu"))
    parts = zip(_labels(folders), models, counts, strict=True)
    return [AnalyzedRun(label, model, counted, summarize_codes(counted)) for label, model, counted in parts], sample


def _check_channels(folders: Sequence[Path], models: Sequence[DQAE]) -> None:
    """Both models see the same images, so that they must be of the same kind."""
    ours, theirs = (model.config.image_channels for model in models)
    if ours != theirs:
        raise ValueError(
            f"{folders[1]} must take images of {ours} channels, as {folders[0]} does; its model takes {theirs}; "
            "compare models of the same kind of images"
        )


def _new_counts(folder: Path, model: DQAE) -> CodeCounts:
    if not model.codebook_sizes:
        raise ValueError(f"{folder} must have a quantizer; its model has none; analyze one that has codes")
    return CodeCounts(model.codebook_sizes)


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or whole paths where these are the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _content(settings: Settings, runs: "Sequence[AnalyzedRun]") -> dict:
    source = settings.source
    return {
        "data": source.data or load_run_settings(source.model)["data"],
        "split": source.split,
        "runs": [{"run": run.label, "config": asdict(run.model.config)} | _figures(run) for run in runs],
    }


def _figures(run: "AnalyzedRun") -> dict:
    """The summary's, all nats in bits too, and mutual information as a share of the lower entropy."""
    figures = asdict(run.summary)
    for part in (*figures["levels"], *figures["mutual_information"]):
        nats = {name: value for name, value in part.items() if name.endswith("_nats")}
        part |= {name.replace("_nats", "_bits"): _in_bits(value) for name, value in nats.items()}
    for estimator, pairs in zip(ESTIMATORS, figures["mutual_information"], strict=True):
        pairs |= _mean_shares(run.mutual_information(estimator))
    return figures


def _in_bits(nats):
    """A figure, None, or lists of them."""
    if isinstance(nats, list):
        return [_in_bits(value) for value in nats]
    return None if nats is None else nats_to_bits(nats)


def _mean_shares(information: MutualInformation) -> dict:
    """Mutual information of a pair over the lower of its entropies, 0..1: means as those in nats."""
    shares = information.normalized("min").tolist()
    of_levels: dict[tuple[int, int], list[float]] = defaultdict(list)
    for (i, (a, _)), (j, (b, _)) in combinations(enumerate(information.codebooks), 2):
        of_levels[a, b].append(shares[i][j])
    levels = sorted({level for level, _ in information.codebooks})
    across = [share for (a, b), found in of_levels.items() if a != b for share in found]
    return {
        "mean_within_level_share": [_mean(of_levels[level, level]) for level in levels],
        "mean_across_levels_share": _mean(across),
    }


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
