"""What a run's model card tells beyond the model: data, recipe, figures."""

import shlex
from dataclasses import asdict

from depthq.measure import Measurement
from depthq.models import PRESETS
from depthq.training.config import TRAINING_PRESETS, DataConfig, RunConfig

_FIGURES = {
    "psnr_db": "PSNR, dB",
    "ssim": "SSIM",
    "code_bits_per_pixel": "codes, bits/pixel (uniform prior)",
    "nll_bits_per_dim": "image given codes, bits/dim",
    "causal_nll_bits_per_dim": "image given codes and neighbours, bits/dim",
    "total_bits_per_dim": "total, bits/dim",
}


def run_notes(config: RunConfig, step: int, measured: Measurement | None, started_from: str | None = None) -> str:
    """Markdown for `DQAE.save_pretrained` of a model after `step` steps, and what its validation gave.

    `started_from` is the folder or the fingerprint of the model whose weights the run began with, if there was one.
    """
    lines = [
        "",
        "## Training",
        "",
        f"{step:,} of {config.training.steps:,} steps of {config.training.batch_size} images. The whole recipe:",
        "",
        f"```\n{command_of(config, started_from)}\n```",
    ]
    if measured is not None:
        lines += [
            "",
            "## Figures",
            "",
            f"On {measured.images} images held out from training.",
            "",
            "| | |",
            "| --- | --- |",
        ]
        figures = ((label, getattr(measured, name)) for name, label in _FIGURES.items())
        lines += [f"| {label} | {value:.4g} |" for label, value in figures if value is not None]
    lines += [
        "",
        "## Limits",
        "",
        "It has seen these images alone: measure it on yours (`depthq evaluate`) before you rely on it.",
    ]
    return "\n".join([*lines, ""])


def command_of(config: RunConfig, started_from: str | None = None) -> str:
    """The command line of `depthq train` that makes such a run in a folder RUN."""
    usual = asdict(DataConfig(data="")) | asdict(TRAINING_PRESETS["small"])
    if started_from is None:  # else what is left out is as in the model that the run begins with
        usual |= asdict(PRESETS["small"])
    settings = config.to_flat_dict()
    del settings["image_channels"]  # the data decides
    told = {"data": settings.pop("data"), "out": "RUN"}
    if started_from is not None:
        told["start_from"] = started_from
    told |= {name: value for name, value in settings.items() if name not in usual or value != _listed(usual[name])}
    options = [f"--{name.replace('_', '-')} {shlex.quote(_text(value))}" for name, value in told.items()]
    return " ".join(["depthq train", *options])


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _text(value: object) -> str:
    return str(value).replace(" ", "").lower() if isinstance(value, list | bool) else str(value)
