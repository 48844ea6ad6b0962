"""What lies in a run's folder, for all who read it: none of them needs the machinery that wrote it."""

import hashlib
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthq.extras import explain_missing
from depthq.files import open_npy
from depthq.models import DQAE, DQAEConfig
from depthq.priors import CodePrior
from depthq.weights import SHIPPED

with explain_missing():
    import yaml


LATER_SETTINGS = {"background", "distance", "image_column", "rotation_trick"}
"""What the config.yaml of a run of an earlier version does not name, and had at its default."""


@dataclass(frozen=True)
class RunFolder:
    """Where everything lies in the folder of a run of `depthq train`, whether it is there yet or not."""

    path: Path

    @property
    def config(self) -> Path:
        """All that decides what the run learns, YAML."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per line: the metrics of a training step or of a validation. `read_metrics` reads it."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of what a killed run goes on from."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The folder that `save_pretrained` writes at every validation."""
        return self.path / "model"

    @property
    def reconstructions(self) -> Path:
        """The folder of one picture per validation."""
        return self.path / "reconstructions"

    @property
    def prior(self) -> Path:
        """The folder of the prior over the model's codes: what `CodePrior.save_pretrained` writes, how it was trained
        (config.yaml, metrics.jsonl, checkpoints/), and the codes that it was trained on."""
        return self.path / "prior"

    @property
    def prior_codes(self) -> Path:
        """The codes of the training images."""
        return self.prior / "codes.parquet"

    @property
    def training_images(self) -> Path:
        """An array of uint64, one hash of each training image's name, sorted."""
        return self.path / "training_images.npy"

    @property
    def report(self) -> Path:
        """The page that `depthq report` writes."""
        return self.path / "report.html"


def load_model(folder: Path) -> DQAE:
    """The trained model, in eval mode, of a run's folder or of one that `save_pretrained` wrote.

    Raises:
        ValueError: If the folder is neither.
    """
    return DQAE.from_pretrained(_model_folder(folder))


def load_model_config(folder: Path) -> DQAEConfig:
    """What the model that `load_model` loads is made of, without its weights.

    Raises:
        ValueError: If the folder is none of a model, or the config is damaged.
        TypeError: If the config is damaged.
        OSError: If there is none.
    """
    return DQAEConfig.from_dict(json.loads((_model_folder(folder) / "config.json").read_bytes()))


def _model_folder(folder: Path) -> Path:
    """The folder of the model in a run's folder, or that folder itself; raises ValueError if it is neither."""
    if RunFolder(folder).model.is_dir():
        return RunFolder(folder).model
    if is_run(folder):
        raise ValueError(f"{folder} must hold a trained model; got none yet; go on with: {resume_command(folder)}")
    if folder.is_file():
        raise ValueError(f"{folder} must be the folder of a run of depthq train; got a file; give the folder")
    if not folder.is_dir():
        raise ValueError(
            f"{folder} must be a folder with a trained model or a shipped one ({', '.join(SHIPPED)}); it is neither; "
            "make one with depthq train, or check the spelling"
        )
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} must be a run of depthq train or a save_pretrained folder; it is neither")
    return folder


def resume_command(run: Path) -> str:
    """What goes on with a run."""
    return f"depthq train --out {shlex.quote(str(run))} --resume"


def load_prior(folder: Path) -> CodePrior | None:
    """The prior of a run, or of a model's folder that has one; None where it has none.

    Raises:
        ValueError: If it is damaged.
    """
    prior = RunFolder(folder).prior
    return CodePrior.from_pretrained(prior) if (prior / "config.json").is_file() else None


def is_model(folder: Path) -> bool:
    """Whether `folder` is meant as a model, trained yet or not: a run's folder, or one that `save_pretrained` wrote."""
    return is_run(folder) or RunFolder(folder).model.is_dir() or (folder / "config.json").is_file()


def is_run(folder: Path) -> bool:
    """Whether `folder` was made by `depthq train`."""
    return RunFolder(folder).config.is_file()


def name_hashes(names: Iterable[str]) -> np.ndarray:
    """uint64, sorted: what `RunFolder.training_images` holds of images with these names (`ImageDataset.names`)."""
    digests = (hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest() for name in names)
    return np.sort(np.frombuffer(b"".join(digests), dtype="<u8"))


def load_training_images(run: Path) -> np.ndarray | None:
    """The hashes of the names of all images that a run was trained on; None where it does not say.

    Raises:
        ValueError: If the file is damaged.
    """
    file = RunFolder(run).training_images
    if not file.is_file():
        return None
    try:
        hashes = open_npy(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} must be a whole .npy file; got: {error}; delete it") from error
    if hashes.dtype != np.uint64 or hashes.ndim != 1:
        raise ValueError(f"{file} must hold a list of uint64; got {hashes.dtype} {hashes.shape}; delete it")
    return hashes


def load_run_settings(run: Path) -> dict[str, Any]:
    """What RUN/config.yaml says, one flat mapping; raises ValueError if it is damaged."""
    file = RunFolder(run).config
    settings = load_settings(file)
    size = settings.get("image_size")
    if not isinstance(size, int | None) or isinstance(size, bool) or not isinstance(settings.get("data"), str):
        raise ValueError(f"{file} must name data and a whole image_size; it does not; write it anew")
    return settings


def load_settings(file: Path) -> dict[str, Any]:
    """What a YAML file of options says, one flat mapping; raises ValueError if it is damaged."""
    try:
        settings = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} must be YAML; got: {error}; write it anew") from error
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        kinds = sorted({type(name).__name__ for name in settings}) if isinstance(settings, dict) else []
        got = f"names of type {', '.join(kinds)}" if kinds else type(settings).__name__
        raise ValueError(f"{file} must map options to values; got {got}; write it anew")
    return settings


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Rows of a metrics.jsonl; a last row that a crash cut off is left out, and no file is no rows.

    Returns:
        One dict per row, in the order of the file: "step", and metrics by names that carry their unit.

    Raises:
        ValueError: If another row is damaged, names no step, or holds a value that is no number.
    """
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{file} must hold one JSON object per line; got: {error} in line {number}; delete that line"
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise ValueError(f"{file} must name a whole step in every row; got {line!r} in line {number}; delete it")
        for name, value in row.items():
            if not isinstance(value, int | float):
                raise ValueError(
                    f"{file} must hold numbers; got {json.dumps(value)} for {name} in line {number}; delete that line"
                )
        rows.append(row)
    return rows
