"""The results store: one JSON file per finished experiment, and a picture beside it."""

import json
import math
import os
import platform
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, reduce
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from depthq.files import replacing
from studies.dq_paper.experiment import Experiment, Outcome
from studies.dq_paper.keys import content_of, key_of

_CIRCUMSTANCES = {"versions", "device", "threads", "cores", "seconds", "commit", "finished"}
_DENSITY = ("mse", "mse_standardized", "entropy_nats", "entropy_miller_madow_nats")
_FIGURES = {
    "training": ("mse_normalized", "psnr_db"),
    "progressive": ("mse_normalized", "psnr_db"),
    "codec": ("bits_per_pixel", "psnr_db"),
    "density": ("seeds", *(f"{on}.{name}.mean" for on in ("held_out", "training") for name in _DENSITY)),
}
"""Numbers that an experiment of each kind must have found, all above zero; a dot goes into an inner table."""
_LIKELIHOODS = ("nll_nats_per_dim", "nll_bits_per_dim", "code_bits_per_dim", "total_bits_per_dim")
"""The same of networks with a likelihood of 8-bit images."""
_NO_NUMBERS = ("levels", "level_alone_psnr_db", "stages", "held_out", "training", "axis", "warnings")
"""Figures with figures in them, and words."""
PACKAGES = (
    "depthq",
    "torch",
    "lightning",
    "datasets",
    "numpy",
    "pillow",
    "pillow-jxl-plugin",
)
"""Whose versions a result names, where they are installed."""


@dataclass(frozen=True)
class Result:
    """A finished experiment."""

    experiment: dict[str, Any]
    """All that fixed what was measured; its `key_of` is the file's."""
    figures: dict[str, Any]
    """See `Outcome`."""
    codes: dict[str, Any] | None
    """See `Outcome`."""
    curve: dict[str, list[float]]
    """See `Outcome`."""
    made: dict[str, Any]
    """Where, when, from which commit, with which packages, and in how many seconds (since it last went on)."""
    file: Path
    """Where it is stored."""

    @property
    def picture(self) -> Path | None:
        """The PNG beside the file, if there is one."""
        picture = self.file.with_suffix(".png")
        return picture if picture.exists() else None


class ResultsStore:
    """A folder of results, small enough to be committed.

    Args:
        folder: Where; made when the first result is saved.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._commit = _commit()  # now: the checkout may move on while experiments run

    def find(self, experiment: Experiment) -> Result | None:
        """The result of an experiment; None, with a warning that names the file, if it is damaged."""
        file = self._file(content_of(experiment))
        return _read(file) if file.exists() else None

    def all(self) -> list[Result]:
        """Every result that is whole and alone of its experiment, with a warning for each file that is not."""
        results: dict[str, Result] = {}
        for file in sorted(self.folder.glob("*.json")):
            result = _read(file)
            if result is None:
                continue
            first = results.setdefault(key_of(result.experiment), result)
            if first is not result:
                warnings.warn(
                    f"{file} must be the only result of its experiment; got {first.file} as well; left out; "
                    "delete one of them",
                    stacklevel=2,
                )
        return list(results.values())

    def save(self, experiment: Experiment, outcome: Outcome, *, seconds: float) -> Path:
        """Write the result of an experiment; the JSON file comes last, and makes it count as finished."""
        content = content_of(experiment)
        file = self._file(content)
        found = {"figures": outcome.figures, "codes": outcome.codes, "curve": outcome.curve}
        result = {"experiment": content} | _rounded(found) | {"made": _circumstances(seconds, self._commit)}
        text = json.dumps(result, indent=1) + "\n"  # before anything is written: it may not be JSON
        if outcome.picture is not None:
            with replacing(file.with_suffix(".png")) as stream:
                outcome.picture.save(stream, "PNG", optimize=True)
        with replacing(file) as stream:
            stream.write(text.encode())
        return file

    def _file(self, content: Mapping[str, Any]) -> Path:
        return self.folder / f"{name_of(content)}-{key_of(content)}.json"


def name_of(content: Mapping[str, Any]) -> str:
    """A file name that tells a person what is in it; the key behind it is what counts."""
    words = [content["kind"], content.get("data")]
    if model := content.get("model"):
        sizes = model["codebook_size"]
        sizes = "x".join(map(str, sizes)) if isinstance(sizes, list) else sizes
        words += [model["likelihood"], model["quantizer"], f"M{model['num_codebooks']}", f"K{sizes}"]
        words.append(f"seed{content['training']['seed']}")
    return "-".join(str(word) for word in words if word).replace("_", "-")


def _read(file: Path) -> Result | None:
    try:
        fields = json.loads(file.read_text())
        result = Result(**fields, file=file)
        _check(fields)
        key = key_of(result.experiment)
        if result.picture:
            with Image.open(result.picture) as picture:
                picture.verify()
    except (OSError, ValueError, TypeError, AttributeError, SyntaxError) as error:  # Pillow raises the last one
        warnings.warn(
            f"{file} must be a whole result; got: {error}; left out; delete it, and run its row again if it has one",
            stacklevel=3,
        )
        return None
    if not file.stem.endswith(f"-{key}"):
        warnings.warn(
            f"{file} must hold the result that its name says; got another experiment's, {key}; left out; delete it, "
            "and run its row again",
            stacklevel=3,
        )
        return None
    return result


def _check(fields: Mapping[str, Any]) -> None:
    """Raise ValueError if anything that pages are made of is not there, or is no number where it must be one."""
    for name, value in fields.items():
        if not isinstance(value, dict) and (name, value) != ("codes", None):
            raise ValueError(f"{name} of another kind, {type(value).__name__}")
    if missing := _CIRCUMSTANCES - fields["made"].keys():
        raise ValueError(f"made without {', '.join(sorted(missing))}")
    _check_number("made.seconds", fields["made"]["seconds"])
    kind, model = fields["experiment"].get("kind"), fields["experiment"].get("model", {})
    is_discrete = model.get("likelihood", "l2") != "l2"
    _check_figures(fields["figures"], [*_FIGURES.get(kind, ()), *(_LIKELIHOODS if is_discrete else ())])
    if kind == "density":
        _check_deviations(fields["figures"])
    if kind == "training":
        _check_curve(fields["curve"], "nll_bits_per_dim" if is_discrete else "mse_normalized")
        _check_levels(fields["figures"], model)
    if fields["codes"] is not None:
        _check_codes(fields["codes"])


def _check_figures(figures: Mapping[str, Any], required: Sequence[str]) -> None:
    for name in required:
        _check_number(name, reduce(_part_of, name.split("."), figures), above=0.0)
    for name, value in figures.items():
        if name not in _NO_NUMBERS and value is not None:
            _check_number(name, value)


def _part_of(table: Any, name: str) -> Any:
    return table.get(name) if isinstance(table, Mapping) else None


def _check_deviations(figures: Mapping[str, Any]) -> None:
    for on in ("held_out", "training"):
        for name in _DENSITY:
            if figures[on][name].get("deviation", "absent") is not None:
                _check_number(f"{on}.{name}.deviation", figures[on][name].get("deviation"))


def _check_curve(curve: Mapping[str, Sequence[float]], loss: str) -> None:
    if not (curve.get("step") and curve.get(loss)) or len({len(values) for values in curve.values()}) > 1:
        raise ValueError(f"a curve without {loss} for every step")
    for name, values in curve.items():
        for value in values:
            _check_number(f"curve {name}", value)


def _check_levels(figures: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    sizes, alone = model.get("codebook_size"), figures.get("level_alone_psnr_db")
    if alone is not None and not (isinstance(sizes, list) and len(alone) == len(sizes)):
        raise ValueError(f"level_alone_psnr_db = {alone} for codebooks of {sizes}")


def _check_codes(codes: Mapping[str, Any]) -> None:
    for name, of_each in (("levels", "position_entropy_nats"), ("mutual_information", "matrix_nats")):
        if not codes.get(name) or not all(part.get(of_each) for part in codes[name]):
            raise ValueError(f"codes without {of_each} of {name}")


def _check_number(name: str, value: Any, above: float = -math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < math.inf:
        raise ValueError(f"{name} = {value!r}")


def _rounded(value: Any) -> Any:
    """Six significant digits: more are noise, and only make files larger."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def _circumstances(seconds: float, commit: str | None) -> dict[str, Any]:
    return {
        "versions": {"python": platform.python_version()} | _versions(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {_processor()}",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "seconds": round(seconds),
        "commit": commit,
        "finished": datetime.now(UTC).date().isoformat(),
    }


@cache
def _versions() -> dict[str, str]:
    installed = {
        distribution.metadata["Name"].lower(): distribution.version for distribution in metadata.distributions()
    }
    return {name: installed[name] for name in PACKAGES if name in installed}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Of the checkout that this code is run from; "-dirty" behind it if it was changed; None if it is none."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # else another project's, around an installed package
        return _git("describe", "--always", "--dirty", "--abbrev=10")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
