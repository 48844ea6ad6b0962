"""Measure and draw what codes say and share: entropy, usage, mutual information, and what each level knows.

examples:
  depthq analyze runs/demo --out analysis/
  depthq analyze runs/dq --compare runs/vq --data cifar10/ --out dq-and-vq/
  depthq analyze codes.parquet --out analysis/
  depthq analyze codes.npy --codebook-size 1024 --out analysis/

Writes analysis.json, table.txt, plots and pictures (PNG) into a new folder. All images of the split (or the first
--limit) are counted; those in the pictures are drawn from them at random, the same ones every time. --compare counts
another model over the same images, and draws both with the same scales.

In place of a model it takes a file of codes, of depthq encode (of images of one size, as --crop makes them) or of any
quantizer: an integer array (N, M) or (B, M, *positions) of numpy.save, with the codebooks' sizes. What asks for a
model, the pictures, is left out there.

Tables of pairs of codes that would take more than 1 GiB are left out, and so are those per position: entropy and usage
are told all the same. docs/analysis.md tells how to read it all.
"""

import json
import math
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
from depthq.analysis.counting import TABLES_LIMIT_BYTES
from depthq.analysis.summary import ESTIMATORS
from depthq.cli.model_and_data import (
    MODEL_HELP,
    ModelAndData,
    add_model_and_data,
    batches_of,
    model_and_data,
    model_folder,
    open_model_and_images,
    warn_of_trained_on,
)
from depthq.cli.paths import user_path
from depthq.cli.stored_codes import count_stored_codes, is_codes_file
from depthq.files import new_folder
from depthq.models import DQAE
from depthq.runs import is_model, load_model, load_run_settings
from depthq.units import nats_to_bits

if TYPE_CHECKING:
    from PIL.Image import Image

    from depthq.data import ImageDataset
    from depthq.measure import ImageSample
    from depthq.report import AnalyzedCodes, AnalyzedRun

IMAGES_DRAWN = 8
PREFIX_IMAGES = 256


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    codebook_sizes: list[int]
    compare: Path | None
    limit: int | None
    out: Path


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser, whole=False, help=f"{MODEL_HELP}, or a file of codes")
    parser.add_argument(
        "--codebook_size", type=PositiveInt, nargs="+", help="K of an array's codebooks: one for all, or one of each"
    )
    parser.add_argument("--compare", type=model_folder, help="another model, to be shown beside this one")
    parser.add_argument("--limit", type=PositiveInt, help="only the first so many images")
    parser.add_argument("--out", type=user_path, required=True, help="the folder to write")
    options = parser.parse_args(_sizes_last(arguments))
    _check_options(options, has_split=any(argument.partition("=")[0] == "--split" for argument in arguments))
    return Settings(
        model_and_data(options, whole=False), options.codebook_size or [], options.compare, options.limit, options.out
    )


def _sizes_last(arguments: list[str]) -> list[str]:
    """--codebook_size and the numbers behind it moved to the end, where they cannot take the file for one of theirs."""
    if "--" in arguments:  # then nothing behind it is an option
        return arguments
    others, sizes, taking = [], [], False
    for argument in arguments:
        of_sizes = argument == "--codebook_size" or (taking and argument.isdigit())
        (sizes if of_sizes else others).append(argument)
        taking = of_sizes
    return others + sizes


def _check_options(options, *, has_split: bool) -> None:
    """Options that go together with a model or with a file of codes, but not with both."""
    if is_codes_file(options.model):
        for name in ("compare", "data", "split", "crop", "on_bad_image", "background", "image_column"):
            if has_split if name == "split" else getattr(options, name) is not None:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} must come with a model; got codes in {options.model}; leave it out")
        return
    if options.codebook_size and not is_model(options.model):
        found = "a folder that is neither" if options.model.is_dir() else "nothing there"
        raise ValueError(f"{options.model} must be a model or a file of codes; got {found}; check the path")
    if options.codebook_size:
        raise ValueError(f"--codebook-size must come with a file of codes; got {options.model}, which knows its own")
    if options.compare and is_codes_file(options.compare):
        raise ValueError(f"--compare must be another model; got the file {options.compare}; analyze it by itself")
    if options.compare and options.compare.resolve() == options.model.resolve():
        raise ValueError(f"--compare must be another model; got {options.compare} again; leave it out")


def run(settings: Settings) -> None:
    from depthq.report import comparison_table, draw_plots  # here, as --help need not wait for them

    with new_folder(settings.out) as folder:
        runs, pictures = _analyze(settings)
        table = comparison_table({run.label: run.summary for run in runs})
        (folder / "analysis.json").write_text(json.dumps(_content(settings, runs), indent=2) + "\n")
        (folder / "table.txt").write_text(table + "\n", "utf-8", errors="backslashreplace")
        for name, picture in (draw_plots(runs) | pictures).items():
            picture.save(folder / f"{name}.png")
    print(f"{settings.out}: codes of {runs[0].summary.images} images\n\n{table}")
    for run in runs:
        for warning in run.summary.left_out:
            print(f"\nnote on {run.label}: {warning}")
        if run.summary.has_too_few_images:
            print(
                f"\nnote on {run.label}: too few images for all figures: {run.summary.images}, where at least about "
                f"{run.summary.images_needed:,} are needed. Which, and by how much: "
                f"warnings in {settings.out}/analysis.json"
            )


def _analyze(settings: Settings) -> "tuple[Sequence[AnalyzedCodes], dict[str, Image]]":
    """What was counted, and the pictures that models make of it: none of codes without a model."""
    from depthq.report import AnalyzedCodes, draw_pictures

    path = settings.source.model
    if is_codes_file(path):
        counts = count_stored_codes(path, settings.codebook_sizes, limit=settings.limit)
        return [AnalyzedCodes(path.name, counts, summarize_codes(counts))], {}
    runs, sample = _count(settings)
    return runs, draw_pictures(runs, sample.images)


def _count(settings: Settings) -> "tuple[list[AnalyzedRun], ImageSample]":
    """One pass over the images for each model; the images to draw are of the first."""
    from depthq.measure import ImageSample, measure
    from depthq.report import AnalyzedRun
    from depthq.report.prefixes import measure_prefixes

    folders, models, images = _open(settings)
    counts = [_new_counts(folder, model) for folder, model in zip(folders, models, strict=True)]
    sample, to_measure = ImageSample(IMAGES_DRAWN), ImageSample(PREFIX_IMAGES)
    beside = [lambda images, _: sample.update(images), lambda images, _: to_measure.update(images)]
    measured = []
    for model, of_model in zip(models, counts, strict=True):
        batches = (batch.images for batch in batches_of(images, settings.source, limit=settings.limit))
        measured.append(measure(model, batches, counts=of_model, beside=() if measured else beside))
    prefixes = [measure_prefixes(model, to_measure.images) for model in models]
    parts = zip(_labels(folders), counts, map(summarize_codes, counts), models, measured, prefixes, strict=True)
    return [AnalyzedRun(*part) for part in parts], sample


def _open(settings: Settings) -> "tuple[list[Path], list[DQAE], ImageDataset]":
    """The models with their folders, and the images that all of them see."""
    source = settings.source
    model, images = open_model_and_images(source)
    folders, models = [source.model], [model]
    if settings.compare:
        folders.append(settings.compare)
        models.append(load_model(settings.compare).to(source.device))
        _check_same_images(folders, models, images.image_size)
    if source.split != "train":
        for folder in folders:
            warn_of_trained_on(folder, images, source, limit=settings.limit)
    return folders, models, images


def _check_same_images(folders: Sequence[Path], models: Sequence[DQAE], image_size: int) -> None:
    """Both models see the same images, so that they must be of the same kind."""
    ours, theirs = (model.config.image_channels for model in models)
    if ours != theirs:
        raise ValueError(
            f"{folders[1]} must take images of {ours} channels, as {folders[0]} does; its model takes {theirs}; "
            "compare models of the same kind of images"
        )
    multiples = [model.config.image_multiple for model in models]
    if image_size % multiples[1]:
        raise ValueError(
            f"--crop must be a multiple of the strides of both models' coarsest levels, {multiples[0]} and "
            f"{multiples[1]}; got images of {image_size}; give another, such as {math.lcm(*multiples)}"
        )


def _new_counts(folder: Path, model: DQAE) -> CodeCounts:
    if not any(model.codebook_sizes):
        raise ValueError(f"{folder} must have a quantizer; its model has none; analyze one that has codes")
    return CodeCounts(model.codebook_sizes, limit_bytes=TABLES_LIMIT_BYTES)


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or whole paths where these are the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _content(settings: Settings, runs: "Sequence[AnalyzedCodes]") -> dict:
    source = settings.source
    if is_codes_file(source.model):
        data, split = str(source.model), None
    else:
        data, split = source.data or load_run_settings(source.model)["data"], source.split
    return {"data": data, "split": split, "runs": [_content_of(run) for run in runs]}


def _content_of(run: "AnalyzedCodes") -> dict:
    from depthq.report import AnalyzedRun

    config = measurement = prefixes = None
    if isinstance(run, AnalyzedRun):
        config, measurement = asdict(run.model.config), asdict(run.measurement)
        prefixes = [asdict(prefix) for prefix in run.prefixes]
    return {"run": run.label, "config": config, "measurement": measurement, "prefixes": prefixes} | _metrics(run)


def _metrics(run: "AnalyzedCodes") -> dict:
    """The summary's, all nats in bits too, and mutual information as a share of the lower entropy."""
    metrics = asdict(run.summary)
    for part in (*metrics["levels"], *metrics["mutual_information"]):
        nats = {name: value for name, value in part.items() if name.endswith("_nats")}
        part |= {name.replace("_nats", "_bits"): _in_bits(value) for name, value in nats.items()}
    for estimator, pairs in zip(ESTIMATORS, metrics["mutual_information"], strict=True):
        if run.counts.has_pairs:
            pairs |= _mean_shares(run.mutual_information(estimator))
        else:
            pairs |= {"mean_within_level_share": [None] * len(run.summary.levels), "mean_across_levels_share": None}
    return metrics


def _in_bits(nats):
    """A number of nats, None, or lists of them."""
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
