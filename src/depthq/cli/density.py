"""Describe features of any network by trained codebooks: error and code entropy, by channel segment and by row.

examples:
  depthq density features.npy --num-codebooks 7 --codebook-size 32 1024
  depthq density train.npy --held-out test.npy --axis channel --json
  depthq density --backbone torchvision:vgg16 --data imagenet/ --out vgg16/
  depthq density --backbone timm:resnet50 --layer layer4 --data my-photos/ --axis channel
  depthq density --backbone my_networks:make --weights my.safetensors --data my-photos/

Features are maps (B, C, H, W). The last fifth of an .npy file is held out, unless --held-out names another file; of a
backbone, its maps of the data's test split are. docs/density.md tells the protocol, and what every figure means.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from depthq.cli.model_and_data import add_reading, device_name
from depthq.cli.paths import user_path
from depthq.features.backbones import NORMALIZATIONS, load_backbone, open_features
from depthq.features.density import Axis, Density, DensitySummary, Spread, check_maps, estimate_density, feature_moments
from depthq.files import new_folder

HELD_OUT_SHARE = 5  # one in so many
IMAGE_SIZE = 224


@dataclass(frozen=True)
class FeatureFiles:
    """Features that are there already."""

    features: Path
    held_out: Path | None


@dataclass(frozen=True)
class BackboneAndData:
    """Features that a network is to make of images."""

    backbone: str
    weights: Path | None
    layer: str | None
    data: str
    image_size: int
    normalize: Literal["imagenet", "symmetric"]
    limit: int | None
    out: Path | None
    background: str | None
    image_column: str | None


@dataclass(frozen=True)
class Settings:
    source: FeatureFiles | BackboneAndData
    axes: tuple[Axis, ...]
    codebook_sizes: tuple[int, ...]
    num_codebooks: int
    steps: int
    seeds: int
    device: str
    json: bool


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    _add_source(parser)
    _add_quantizers(parser)
    options = parser.parse_args(arguments)
    return Settings(
        source=_source(options),
        axes=("channel", "row") if options.axis == "both" else (options.axis,),
        codebook_sizes=tuple(options.codebook_size),
        num_codebooks=options.num_codebooks,
        steps=options.steps,
        seeds=options.seeds,
        device=options.device,
        json=options.json,
    )


def run(settings: Settings) -> None:
    with _features(settings) as (train, held_out):
        _check_maps(train, held_out, settings)  # for all axes before the first is trained, which may take long
        mean, variance = feature_moments(train, "training features")
        feature_moments(held_out, "held-out features")
        rows = _estimate(train, held_out, variance, settings)
        facts = {
            "training_shape": list(train.shape),
            "held_out_shape": list(held_out.shape),
            "feature_mean": mean,
            "feature_deviation": math.sqrt(variance),
            "steps": settings.steps,
            "seeds": settings.seeds,
        }
    print(json.dumps(facts | {"rows": [asdict(row) for row in rows]}) if settings.json else _table(facts, rows))


def _estimate(train: np.ndarray, held_out: np.ndarray, variance: float, settings: Settings) -> list[Density]:
    return [
        estimate_density(
            train,
            held_out,
            axis=axis,
            codebook_size=codebook_size,
            num_codebooks=settings.num_codebooks,
            steps=settings.steps,
            seeds=settings.seeds,
            device=settings.device,
            variance=variance,
        )
        for codebook_size in settings.codebook_sizes
        for axis in settings.axes
    ]


def _add_source(parser: ArgumentParser) -> None:
    parser.add_argument("features", type=user_path, nargs="?", help="an .npy file of maps (B, C, H, W)")
    parser.add_argument(
        "--held_out", type=user_path, help="an .npy file to measure on; by default the last fifth of the maps"
    )
    parser.add_argument(
        "--backbone", type=str, help="timm:MODEL, torchvision:MODEL, package.module:factory, or ...:factory:ARGUMENT"
    )
    parser.add_argument(
        "--weights", type=user_path, help="state dict to load; by default timm's, torchvision's or the factory's own"
    )
    parser.add_argument("--layer", type=str, help="name of the layer; by default the last one before pooling")
    parser.add_argument("--data", type=str, help="bundled, a folder, parquet, or the name of a hub data set")
    parser.add_argument("--image_size", type=PositiveInt, help=f"side of the centre crops; by default {IMAGE_SIZE}")
    parser.add_argument(
        "--normalize",
        type=Literal["imagenet", "symmetric"],
        help="pixels as the backbone was trained: ImageNet mean and deviation, the default, or -1..1",
    )
    parser.add_argument("--limit", type=PositiveInt, help="only the first so many images of each split")
    parser.add_argument("--out", type=user_path, help="a new folder to keep the features in, train.npy and test.npy")
    add_reading(parser)


def _add_quantizers(parser: ArgumentParser) -> None:
    parser.add_argument("--codebook_size", type=PositiveInt, nargs="+", default=[32, 1024], help="K, one or several")
    parser.add_argument("--num_codebooks", type=PositiveInt, default=7, help="M; for rows, the number of rows")
    parser.add_argument("--axis", type=Literal["channel", "row", "both"], default="both", help="what shares a codebook")
    parser.add_argument("--steps", type=PositiveInt, default=200, help="batches of 32 maps to train on")
    parser.add_argument("--seeds", type=PositiveInt, default=10, help="how many quantizers to train of each kind")
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _source(options: Namespace) -> FeatureFiles | BackboneAndData:
    """Where features come from; refuses options that do not go together."""
    if bool(options.features) == bool(options.backbone):
        raise ValueError("features must come from one place; give an .npy file, or --backbone and --data")
    if options.features:
        for field in fields(BackboneAndData):
            if options[field.name] is not None:
                option = field.name.replace("_", "-")
                raise ValueError(
                    f"--{option} must go with --backbone; got features from {options.features}; leave it out"
                )
        return FeatureFiles(options.features, options.held_out)
    if options.held_out:
        raise ValueError("--held-out must go with an .npy file; of a backbone, features of the test split are held out")
    if options.data is None:
        raise ValueError("--data must be given with --backbone: the images to make features of")
    told = {field.name: options[field.name] for field in fields(BackboneAndData)}
    told["image_size"] = told["image_size"] or IMAGE_SIZE
    told["normalize"] = told["normalize"] or "imagenet"
    return BackboneAndData(**told)


@contextmanager
def _features(settings: Settings) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out features, memory-mapped; those that a backbone makes lie in --out or a temporary folder."""
    source = settings.source
    if isinstance(source, FeatureFiles):
        yield _open(source)
    elif source.out:
        with new_folder(source.out) as folder:
            _extract(source, settings, folder)
        yield _open(FeatureFiles(source.out / "train.npy", source.out / "test.npy"))
    else:
        with TemporaryDirectory() as name:
            folder = Path(name)
            _extract(source, settings, folder)
            yield _open(FeatureFiles(folder / "train.npy", folder / "test.npy"))


def _open(files: FeatureFiles) -> tuple[np.ndarray, np.ndarray]:
    features = open_features(files.features)
    if files.held_out:
        return features, open_features(files.held_out)
    if features.ndim == 0 or len(features) < HELD_OUT_SHARE:
        raise ValueError(
            f"features must hold at least {HELD_OUT_SHARE} maps, to keep one in {HELD_OUT_SHARE} of them out; "
            f"got shape {features.shape} in {files.features}; name a file with --held-out"
        )
    num_train = len(features) - len(features) // HELD_OUT_SHARE
    return features[:num_train], features[num_train:]


def _extract(source: BackboneAndData, settings: Settings, folder: Path) -> None:
    from depthq.features.extraction import example_maps, extract_features  # here, as --help need not wait for it

    model = load_backbone(source.backbone, source.weights)
    normalize = NORMALIZATIONS[source.normalize]
    layer, maps = example_maps(
        model, layer=source.layer, normalize=normalize, image_size=source.image_size, device=settings.device
    )
    _check_maps(maps.cpu().numpy(), maps.cpu().numpy(), settings)  # before the pass over all images
    extract_features(
        model,
        source.data,
        folder,
        layer=layer,
        normalize=normalize,
        image_size=source.image_size,
        limit=source.limit,
        device=settings.device,
        background=source.background,
        image_column=source.image_column,
    )


def _check_maps(train: np.ndarray, held_out: np.ndarray, settings: Settings) -> None:
    for axis in settings.axes:
        check_maps(train, held_out, axis, settings.num_codebooks)


def _table(facts: dict, rows: list[Density]) -> str:
    """Like Table 2, with the figures on training features below those on held-out ones."""
    training, held_out = (" x ".join(map(str, facts[f"{name}_shape"])) for name in ("training", "held_out"))
    lines = [
        f"features   {training} for training, {held_out} held out; "
        f"mean {facts['feature_mean']:.4g}, standard deviation {facts['feature_deviation']:.4g}",
        f"training   {facts['steps']} steps; mean +- standard deviation of {facts['seeds']} seeds",
        "",
        f"{'codebooks':15}{'K':>5}{'D':>5}  {'measured on':11}"
        f"{'L_DQ':>17}{'standardised':>17}{'H, nats':>17}{'corrected':>17}{'usage':>7}",
    ]
    for row in rows:
        kind = f"{f'{row.num_codebooks}, by {row.axis}':15}{row.codebook_size:5}{row.codebook_dim:5}"
        lines.append(f"{kind}  {'held out':11}{_cells(row.held_out)}")
        lines.append(f"{'':25}  {'training':11}{_cells(row.training)}")
    lines += [f"\nnote: {warning}" for row in rows for warning in row.warnings]
    return "\n".join(lines)


def _cells(summary: DensitySummary) -> str:
    spreads = (
        summary.mse,
        summary.mse_standardized,
        summary.entropy_nats,
        summary.entropy_miller_madow_nats,
    )
    return "".join(f"{_plus_minus(spread):>17}" for spread in spreads) + f"{summary.usage.mean:7.0%}"


def _plus_minus(figure: Spread) -> str:
    return f"{figure.mean:.4f}" + ("" if figure.deviation is None else f"+-{figure.deviation:.4f}")
