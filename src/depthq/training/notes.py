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


def run_notes(config: RunConfig, step: int, measured: Measurement | None) -> str:
    """Markdown for `DQAE.save_pretrained` of a model after `step` steps, and what its validation gave."""
    lines = [
        "",
        "## Training",
        "",
        f"{step:,} of {config.training.steps:,} steps of {config.training.batch_size} images. The whole recipe:",
        "",
        f"```\n{command_of(config)}\n```",
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


def command_of(config: RunConfig) -> str:
    """The command line of `depthq train` that makes such a run."""
    usual = asdict(DataConfig(data="")) | asdict(PRESETS["small"]) | asdict(TRAINING_PRESETS["small"])
    told = [
        f"--{name.replace('_', '-')} {shlex.quote(_text(value))}"
        for name, value in config.to_flat_dict().items()
        if name != "image_channels" and value != (list(usual[name]) if isinstance(usual[name], tuple) else usual[name])
    ]
    return " ".join(["depthq train", *told])


def _text(value: object) -> str:
    return str(value).replace(" ", "").lower() if isinstance(value, list | bool) else str(value)
