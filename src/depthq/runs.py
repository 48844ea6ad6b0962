"""What lies in a run's folder, for all who read it: none of them needs the machinery that wrote it."""

from pathlib import Path
from typing import Any

from depthq.extras import explain_missing
from depthq.models import DQAE

with explain_missing():
    import yaml


def load_model(folder: Path) -> DQAE:
    """The trained model, in eval mode, of a run's folder or of one that `save_pretrained` wrote.

    Raises:
        ValueError: If the folder is neither.
    """
    if (folder / "model").is_dir():
        return DQAE.from_pretrained(folder / "model")
    if is_run(folder):
        raise ValueError(f"{folder} must hold a trained model; got none yet; go on with: depthq train --resume")
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder with a trained model; there is none; make one with depthq train")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} must be a run of depthq train or a save_pretrained folder; it is neither")
    return DQAE.from_pretrained(folder)


def is_run(folder: Path) -> bool:
    """Whether `folder` was made by `depthq train`."""
    return (folder / "config.yaml").is_file()


def load_run_settings(run: Path) -> dict[str, Any]:
    """What RUN/config.yaml says, one flat mapping; raises ValueError if it is damaged."""
    settings = load_settings(run / "config.yaml")
    if not isinstance(settings.get("image_size"), int | None) or not isinstance(settings.get("data"), str):
        raise ValueError(f"{run / 'config.yaml'} must name data and a whole image_size; it does not; write it anew")
    return settings


def load_settings(file: Path) -> dict[str, Any]:
    """What a YAML file of options says, one flat mapping; raises ValueError if it is damaged."""
    try:
        settings = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} must be YAML; got: {error}; write it anew") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file} must map options to values; got {type(settings).__name__}; write it anew")
    return settings
