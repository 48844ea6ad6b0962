"""Train a prior over the codes of a model: what makes codes cheaper, and images that nobody took.

examples:
  depthq prior runs/demo
  depthq prior runs/cifar --steps 10000 --factorization parallel
  depthq prior runs/cifar --steps 10000 --resume

Encodes the training images once, as centre crops, into MODEL/prior/codes.parquet, and trains a transformer on these
codes. Some of the images are held out: MODEL/prior holds the prior as it was when they cost least, and training stops
when they have not become cheaper for a while. Then evaluate, sample, compress and decompress find it there.

A prior is resumed as it was started; of images that were named then, name the same.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse import ArgumentParser, Namespace

from depthq.cli.kept_settings import checked
from depthq.cli.model_and_data import (
    BATCH_SIZE,
    ModelAndData,
    add_model_and_data,
    check_is_no_shipped_model,
    images_key,
    model_and_data,
    open_model_and_images,
)
from depthq.files import is_leftover
from depthq.runs import RunFolder, load_settings
from depthq.training import Hardware, PriorConfig, PriorTrainingConfig

if TYPE_CHECKING:
    from depthq.codes import Codes
    from depthq.models import DQAE
    from depthq.training.prior import PriorOutcome

Kind = TypeVar("Kind", PriorConfig, PriorTrainingConfig, Hardware)


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    prior: PriorConfig
    training: PriorTrainingConfig
    hardware: Hardware
    resume: bool


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser, split="train", whole=False)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in MODEL/prior")
    parser.add_class_arguments(PriorConfig)
    parser.add_class_arguments(PriorTrainingConfig)
    parser.add_class_arguments(Hardware)
    options = parser.parse_args(arguments)
    config = RunFolder(RunFolder(options.model).prior).config
    if options.resume and config.is_file():
        known = {field.name for kind in (PriorConfig, PriorTrainingConfig) for field in fields(kind)}
        model = str(options.model)
        parser.set_defaults(checked(load_settings(config), parser, config, known, known, model=model))
        options = parser.parse_args(arguments)
    return Settings(
        source=model_and_data(options, whole=False),
        prior=_pick(PriorConfig, options),
        training=_pick(PriorTrainingConfig, options),
        hardware=_pick(Hardware, options),
        resume=options.resume,
    )


def _pick(kind: type[Kind], options: Namespace) -> Kind:
    return kind(**{field.name: options[field.name] for field in fields(kind)})


def run(settings: Settings) -> None:
    from lightning.pytorch.utilities import rank_zero_only  # here, as --help need not wait for it

    from depthq.training import train_prior

    check_is_no_shipped_model(settings.source.model)
    folder = RunFolder(settings.source.model).prior
    _check_start(settings, folder)
    codes = _codes(settings.source, is_going_on=settings.resume)
    try:
        outcome = train_prior(
            codes, folder, prior=settings.prior, training=settings.training, hardware=settings.hardware
        )
    except KeyboardInterrupt:
        is_begun = RunFolder(folder).config.is_file()
        again = f"go on with: {_resume_command(settings.source)}" if is_begun else "start it anew"
        raise KeyboardInterrupt(f"; {again}") from None
    if rank_zero_only.rank == 0:
        _show(folder, outcome, sum(level[0, 0].numel() for level in codes.levels))


def _resume_command(source: ModelAndData) -> str:
    """What goes on with a prior: config.yaml holds all but the images."""
    told = {
        "--data": source.data,
        "--split": None if source.split == "train" else source.split,
        "--crop": source.crop,
        "--on-bad-image": source.on_bad_image,
        "--background": source.background,
        "--image-column": source.image_column,
    }
    options = [word for name, value in told.items() if value is not None for word in (name, str(value))]
    return shlex.join(["depthq", "prior", str(source.model), *options, "--resume"])


def _check_start(settings: Settings, folder: Path) -> None:
    config = RunFolder(folder).config
    if not settings.resume:
        if folder.exists() and not all(is_leftover(path) or path.name == "codes.parquet" for path in folder.iterdir()):
            remedy = "add --resume to go on with it, or move it away" if config.is_file() else "move it away"
            raise ValueError(f"{folder} must not hold a prior yet; it does; {remedy}")
        return
    if not config.is_file():
        remedy = "leave --resume out to start one"
        if (folder / "config.json").is_file():
            raise ValueError(
                f"{folder} must be a prior to resume; got one without the {config.name} of its training; move it away, "
                f"and {remedy}"
            )
        raise ValueError(f"{folder} must be a prior to resume; there is none; {remedy}")
    before, now = load_settings(config), _as_dict(settings.prior) | _as_dict(settings.training)
    changed = [f"{name} was {before.get(name)}, is {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        raise ValueError(f"a prior resumes only as it was started; {'; '.join(changed)}; leave these options out")


def _as_dict(config: PriorConfig | PriorTrainingConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _codes(source: ModelAndData, *, is_going_on: bool) -> "Codes":
    """Of the training images: read, where this very model has encoded these before, or else encoded."""
    from depthq.codes.file import write_codes

    model, images = open_model_and_images(source)
    path, key = RunFolder(source.model).prior_codes, images_key(source, images)
    # Codes that a version before this one began with say of no images.
    codes = _read_codes(path, model.fingerprint(), [key, None] if is_going_on else [key])
    if codes is None and is_going_on:
        raise ValueError(
            f"a prior resumes only on the codes that it was started with; {path} does not hold those of these images, "
            f"or is damaged; name the data as then, or move {path.parent} away and start anew without --resume"
        )
    if codes is None:
        write_codes(path, _encoded(model, images), model_fingerprint=model.fingerprint(), images_key=key)
        codes = _read_codes(path, model.fingerprint(), [key])
        assert codes is not None
    return codes


def _read_codes(path: Path, model_fingerprint: str, keys: Sequence[str | None]) -> "Codes | None":
    """What is stored; None if that is of another model or other images, or damaged."""
    from depthq.codes import Codes
    from depthq.codes.file import read_codes, read_header

    try:
        if read_header(path).images_key not in keys:
            return None
        return Codes.cat(batch.codes for batch in read_codes(path, model_fingerprint=model_fingerprint))
    except (FileNotFoundError, ValueError):
        return None


def _encoded(model: "DQAE", images: Any) -> "Iterator[Codes]":
    from depthq.data import evaluation_loader
    from depthq.progress import progress

    for batch in progress(evaluation_loader(images, batch_size=BATCH_SIZE), what="encoding", unit="batch"):
        yield model.encode(batch.to(model.device)).to("cpu")


def _show(folder: Path, outcome: "PriorOutcome", num_positions: int) -> None:
    uniform = outcome.uniform_bits_per_image
    print(f"{folder}: trained {outcome.steps} steps; {outcome.held_out_images} held-out images")
    for name, bits in (
        ("uniform", uniform),
        ("counted", outcome.counted_bits_per_image),
        ("counted, given left", outcome.counted_given_left_bits_per_image),
        ("prior", outcome.prior_bits_per_image),
    ):
        saved = 1 - bits / uniform if uniform else 0.0  # codebooks of one code cost nothing
        print(f"  {name:20} {bits / num_positions:8.3f} bits/position   {saved:6.1%} saved")
    if outcome.best_step < outcome.steps:
        print(
            f"  held-out images cost least at step {outcome.best_step}: from there on it began to know images by heart"
        )
