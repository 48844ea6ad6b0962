"""Train a model on images.

examples:
  depthq train --data bundled --out runs/demo --steps 600
  depthq train --data my-photos/ --image-size 64 --out runs/photos --codebook-size "[256,128]" --likelihood categorical
  depthq train --data cifar10/ --out runs/vq --quantizer shared --num-codebooks 5
  depthq train --data cifar10/ --out runs/big --preset paper --devices 8 --strategy ddp
  depthq train --out runs/big --resume
  depthq train --out runs/big --resume --steps 300000
  depthq train --data my-photos/ --out runs/fine --start-from photos-small

A run is resumed as it was started. With more --steps it goes on for longer: the cosine schedule is stretched to them,
so that the learning rate rises again first. --data may name another place if the same images lie there.

--start-from begins a new run with the weights of another, of a save_pretrained folder or of a shipped model. The model
is built as that one is, but for options that are given; --preset then decides the training alone. Weights are taken as
far as shapes are the same: a quantizer as a whole or not at all, and levels counted from the finest.

Options may be written with dashes or underscores, and may stand in a YAML file given with --config.
"""

import argparse
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import yaml
from jsonargparse import ArgumentParser, Namespace

from depthq.cli.kept_settings import checked
from depthq.cli.main import with_underscores
from depthq.cli.model_and_data import model_folder
from depthq.cli.paths import absolute_if_there, user_path
from depthq.files import is_empty_folder
from depthq.models import PRESETS, DQAEConfig
from depthq.runs import (
    LATER_SETTINGS,
    RunFolder,
    is_run,
    load_model_config,
    load_run_settings,
    load_settings,
    load_training_images,
    name_hashes,
    resume_command,
)
from depthq.training import TRAINING_PRESETS, DataConfig, Hardware, RunConfig, TrainingConfig

if TYPE_CHECKING:
    from depthq.measure import Measurement

Kind = TypeVar("Kind", DataConfig, DQAEConfig, TrainingConfig, Hardware)


@dataclass(frozen=True)
class Settings:
    config: RunConfig
    hardware: Hardware
    out: Path
    resume: bool
    start_from: Path | None
    started_from: str | None


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    """Defaults from the preset, or from the run that is resumed; then the YAML file; then the command line."""
    early = _early(arguments)
    parser.description = f"{__doc__}\n{_preset_table()}"
    parser.add_argument("--out", type=user_path, required=True, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out from its newest checkpoint")
    parser.add_argument(
        "--start_from", type=model_folder, help="whose weights to begin with: a run, a folder, a shipped name"
    )
    parser.add_argument("--started_from", help=argparse.SUPPRESS)  # what a run's config.yaml says of its start
    parser.add_argument("--preset", type=str, default="small", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--config", action="config", help="YAML file of options, such as another run's config.yaml")
    parser.add_class_arguments(DataConfig)
    parser.add_class_arguments(DQAEConfig, skip={"image_channels"})
    parser.add_class_arguments(TrainingConfig)
    parser.add_class_arguments(Hardware)
    known = {name for kind in (DataConfig, DQAEConfig, TrainingConfig) for name in _names(kind)}
    if early.resume and not early.preset and early.out and is_run(user_path(early.out)):
        settings = load_run_settings(user_path(early.out))
        settings.pop("started_from", None)
        file = RunFolder(user_path(early.out)).config
        parser.set_defaults(checked(settings, parser, file, known, known - LATER_SETTINGS, out=early.out))
    else:
        parser.set_defaults(_preset(early.preset or "small") | _model_of(early.start_from))
    options = parser.parse_args(_config_first(arguments))
    options.data = absolute_if_there(options.data)
    return Settings(
        config=RunConfig(
            data=_pick(DataConfig, options),
            model=_pick(DQAEConfig, options),
            training=_pick(TrainingConfig, options),
        ),
        hardware=_pick(Hardware, options),
        out=options.out,
        resume=options.resume,
        start_from=options.start_from,
        started_from=options.started_from,
    )


def run(settings: Settings) -> None:
    from lightning.pytorch.utilities import rank_zero_only  # here, as --help need not wait for it

    from depthq.training import steps_done, train

    out, config = settings.out, settings.config
    if settings.resume:
        _check_same_run(config, out)
    elif rank_zero_only.rank == 0:  # the others find what rank zero has begun
        _check_is_new_or_empty(out)
    if settings.resume and settings.start_from is not None:
        raise ValueError(
            "start_from must be left out with --resume, which goes on from the run's own checkpoint; got both"
        )
    if settings.started_from and not settings.resume and settings.start_from is None:
        warnings.warn(
            f"--config is of a run that began with the weights of {settings.started_from}; this one begins with none; "
            "pass --start-from for such a start",
            stacklevel=2,
        )
    try:
        measured = train(config, out, hardware=settings.hardware, start_from=settings.start_from)
    except KeyboardInterrupt:
        saved = f"; {steps_done(out)} of {config.training.steps} steps are saved in {out}"
        again = f"go on with: {resume_command(out)}" if is_run(out) else "start it anew"
        raise KeyboardInterrupt(f"{saved}; {again}") from None
    if rank_zero_only.rank == 0:
        _report(config, out, measured)


def _report(config: RunConfig, out: Path, measured: "Measurement") -> None:
    from depthq.cli.show import show_measurement

    print(f"{out}: trained {config.training.steps} steps")
    show_measurement(measured)


def _check_is_new_or_empty(out: Path) -> None:
    if out.exists() and not is_empty_folder(out):
        remedy = "add --resume to go on with it" if is_run(out) else "it is no run of depthq train"
        raise ValueError(f"--out must be new or empty; got {out}, which is neither ({remedy}); choose another folder")


def _options_in(file: Path) -> dict:
    """What a file of options says, by names with underscores."""
    settings, options = load_settings(file), {}
    for written, value in settings.items():
        name = with_underscores(f"--{written}").removeprefix("--")
        if name in options:
            raise ValueError(f"{file} must name {name} once; got it with dashes and with underscores; leave one out")
        options[name] = value
    return options


def _config_first(arguments: list[str]) -> list[str]:
    """What is in the files of --config, moved to the front: what comes later wins, and that is the command line."""
    texts, others, following = [], [], iter(arguments)
    for argument in following:
        option, is_joined, value = argument.partition("=")
        if option != "--config":
            others.append(argument)
            continue
        value = value if is_joined else next(following)
        file = user_path(value)
        texts.append(f"--config={yaml.safe_dump(_options_in(file)) if file.is_file() else value}")
    return texts + others


def _early(arguments: list[str]) -> argparse.Namespace:
    """What decides the other options' defaults, on the command line or in files."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--preset")
    early.add_argument("--config", action="append", default=[])
    early.add_argument("--out")
    early.add_argument("--start_from")
    early.add_argument("--resume", action="store_true")
    files = map(user_path, early.parse_known_args(arguments)[0].config)
    names = ("preset", "out", "start_from", "resume")
    for options in [_options_in(file) for file in files if file.is_file()]:
        early.set_defaults(**{name: options[name] for name in names if isinstance(options.get(name), bool | str)})
    return early.parse_known_args(arguments)[0]


def _preset(name: str) -> dict:
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
    return _options_of(PRESETS[name]) | asdict(TRAINING_PRESETS[name])


def _model_of(start_from: str | None) -> dict:
    """The options of the model that a run begins with; none where there is no such model, as the run then tells."""
    if start_from is None:
        return {}
    try:
        return _options_of(load_model_config(model_folder(start_from)))
    except (OSError, TypeError, ValueError):
        return {}


def _options_of(model: DQAEConfig) -> dict:
    options = asdict(model)
    options.pop("image_channels")  # the data decides
    return options


def _preset_table() -> str:
    """What sets the presets apart."""
    shown = ("likelihood", "num_codebooks", "codebook_size", "codebook_dim", "channels", "num_residual_blocks")
    shown += ("steps", "batch_size", "learning_rate")
    presets = {name: _preset(name) for name in PRESETS}
    lines = ["".join([f"{'preset':22}", *(f"{name:>18}" for name in presets)])]
    for option in shown:
        values = [preset[option] for preset in presets.values()]
        texts = [str(list(value) if isinstance(value, tuple) else value) for value in values]
        lines.append("".join([f"{'--' + option.replace('_', '-'):22}", *(f"{text:>18}" for text in texts)]))
    return "\n".join(f"  {line}" for line in lines)


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def _pick(kind: type[Kind], options: Namespace) -> Kind:
    model_decided = {"image_channels"} if kind is DQAEConfig else set()
    return kind(**{name: options[name] for name in _names(kind) if name not in model_decided})


def _check_same_run(config: RunConfig, out: Path) -> None:
    """A resumed run must learn what it was started to learn; it may leave out images that turned out to be bad, take
    them from where they lie now, and go on for longer."""
    if not is_run(out):
        raise ValueError(f"--out must be a run to resume; got {out}, which is none; leave --resume out to start one")
    before, now = load_run_settings(out), config.to_flat_dict()
    del now["on_bad_image"], now["image_channels"]  # the data decides, and on the image size too where none is given
    if now["image_size"] is None:
        del now["image_size"]
    if now["steps"] > before["steps"]:
        del now["steps"]
    is_elsewhere = now.pop("data") != before["data"]
    changed = [
        f"{name} was {before[name]}, is {now[name]}" for name in before.keys() & now if before[name] != now[name]
    ]
    if changed:
        raise ValueError(f"a run resumes only as it was started; {'; '.join(changed)}; leave these options out")
    if is_elsewhere:
        _check_same_images(config, out)


def _check_same_images(config: RunConfig, out: Path) -> None:
    """Raise ValueError unless the data holds the images that the run was trained on, by their names and sizes."""
    from depthq.data import open_images

    before, data = load_training_images(out), config.data
    images = open_images(
        data.data,
        "train",
        image_size=data.image_size,
        on_bad_image=data.on_bad_image,
        background=data.background,
        image_column=data.image_column,
    )
    now = name_hashes(images.names())
    if before is None or not np.array_equal(before, now):
        known = "unknown images" if before is None else f"{len(before)}"
        same = 0 if before is None else int(np.isin(now, before).sum())
        raise ValueError(
            f"--data must hold the images that {out} was started with ({known}); got {len(now)} in {data.data}, {same} "
            "of them the same; put them back, or start another run with --start-from"
        )
