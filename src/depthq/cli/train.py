"""Train a model on images.

examples:
  depthq train --data bundled --out runs/demo --steps 600
  depthq train --data my-photos/ --image-size 64 --out runs/photos --codebook-size "[256,128]" --likelihood categorical
  depthq train --data cifar10/ --out runs/vq --quantizer shared --num-codebooks 5
  depthq train --data cifar10/ --out runs/big --preset paper --devices 8 --strategy ddp
  depthq train --out runs/big --resume

Options may be written with dashes or underscores, and may stand in a YAML file given with --config.
"""

import argparse
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jsonargparse import ArgumentParser, Namespace

from depthq.files import is_leftover
from depthq.models import PRESETS, DQAEConfig
from depthq.runs import is_run, load_run_settings, load_settings
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


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    """Defaults from the preset, or from the run that is resumed; then the YAML file; then the command line."""
    early = _early(arguments)
    parser.description = f"{__doc__}\n{_preset_table()}"
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out from its newest checkpoint")
    parser.add_argument("--preset", type=str, default="small", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--config", action="config", help="YAML file of options, such as another run's config.yaml")
    parser.add_class_arguments(DataConfig)
    parser.add_class_arguments(DQAEConfig, skip={"image_channels"})
    parser.add_class_arguments(TrainingConfig)
    parser.add_class_arguments(Hardware)
    known = {name for kind in (DataConfig, DQAEConfig, TrainingConfig) for name in _names(kind)}
    if early.resume and not early.preset and early.out and is_run(Path(early.out)):
        settings = load_run_settings(Path(early.out))
        parser.set_defaults({name: value for name, value in settings.items() if name in known})
    else:
        parser.set_defaults(_preset(early.preset or "small"))
    options = parser.parse_args(arguments)
    return Settings(
        config=RunConfig(
            data=_pick(DataConfig, options),
            model=_pick(DQAEConfig, options),
            training=_pick(TrainingConfig, options),
        ),
        hardware=_pick(Hardware, options),
        out=options.out,
        resume=options.resume,
    )


def run(settings: Settings) -> None:
    from lightning.pytorch.utilities import rank_zero_only  # here, as --help need not wait for it

    from depthq.training import train

    out, config = settings.out, settings.config
    if settings.resume:
        _check_same_run(config, out)
    elif rank_zero_only.rank == 0:  # the others find what rank zero has begun
        _check_is_new_or_empty(out)
    try:
        measured = train(config, out, hardware=settings.hardware)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: depthq train --out {out} --resume") from None
    if rank_zero_only.rank == 0:
        _report(config, out, measured)


def _report(config: RunConfig, out: Path, measured: "Measurement") -> None:
    from depthq.cli.show import show_measurement

    print(f"{out}: trained {config.training.steps} steps")
    show_measurement(measured)


def _check_is_new_or_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or not all(map(is_leftover, out.iterdir()))):
        remedy = "add --resume to go on with it" if is_run(out) else "it is no run of depthq train"
        raise ValueError(f"--out must be new or empty; got {out}, which is neither ({remedy}); choose another folder")


def _early(arguments: list[str]) -> argparse.Namespace:
    """What decides the other options' defaults."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset")
    early.add_argument("--config", action="append", default=[])
    early.add_argument("--out")
    early.add_argument("--resume", action="store_true")
    options = early.parse_known_args(arguments)[0]
    in_files = [load_settings(Path(file)).get("preset") for file in options.config if Path(file).is_file()]
    options.preset = next(filter(None, [options.preset, *reversed(in_files)]), None)
    return options


def _preset(name: str) -> dict:
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
    model = asdict(PRESETS[name])
    model.pop("image_channels")  # the data decides
    return model | asdict(TRAINING_PRESETS[name])


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
    """A resumed run must learn what it was started to learn; it may leave out images that turned out to be bad."""
    if not is_run(out):
        raise ValueError(f"--out must be a run to resume; got {out}, which is none; leave --resume out to start one")
    before, now = load_run_settings(out), config.to_flat_dict()
    del now["on_bad_image"], now["image_channels"]  # the data decides, and on the image size too where none is given
    if now["image_size"] is None:
        del now["image_size"]
    changed = [
        f"{name} was {before[name]}, is {now[name]}" for name in before.keys() & now if before[name] != now[name]
    ]
    if changed:
        raise ValueError(f"a run resumes only as it was started; {'; '.join(changed)}; leave these options out")
