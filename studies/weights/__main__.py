"""Train a shipped model and its prior, measure them, and put them into the package with a filled card.

    python -m studies.weights photos-small --cifar10 cifar10/ --runs runs/

What is trained already is not trained again, so a killed command goes on where it was.
"""

import argparse
import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path

from depthq.cli import main as depthq
from depthq.files import new_folder
from depthq.models import DQAE
from depthq.priors import CodePrior
from depthq.runs import RunFolder, is_run
from depthq.weights import SHIPPED, shipped_folder
from studies.weights.images import join_sources
from studies.weights.recipes import BUNDLED, RECIPES, Recipe

assert RECIPES.keys() == SHIPPED.keys()

_ANY_NAME = "this folder, or the name of its repository"
FIGURES = {
    "psnr_db": "PSNR, dB",
    "code_bits_per_pixel": "codes, uniform prior, bits/pixel",
    "prior_bits_per_dim": "codes under the prior, bits/dim",
    "nll_bits_per_dim": "image given codes, bits/dim",
    "causal_nll_bits_per_dim": "image given codes and neighbours, bits/dim",
    "total_bits_per_dim": "total, bits/dim",
    "total_bits_per_dim_with_prior": "total with the prior, bits/dim",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies.weights", description="Train a shipped model, and put it into the package."
    )
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--cifar10", help="its folder of parquet files")
    parser.add_argument("--mnist", help="its folder of parquet files")
    parser.add_argument("--runs", type=Path, required=True, help="where runs lie, RUNS/NAME")
    options = parser.parse_args()
    recipe, run = RECIPES[options.name], options.runs / options.name
    sources = {name: name if name == BUNDLED else getattr(options, name) for name in recipe.data}
    missing = [f"--{name}" for name, place in sources.items() if place is None]
    if missing:
        parser.error(f"{', '.join(missing)} must be given")
    _train(recipe, _one_source(list(sources.values()), options.runs / f"{options.name}-data"), run)
    figures = {name: _measured(run, place) for name, place in sources.items()}
    target = shipped_folder(options.name)
    assert target is not None
    shutil.rmtree(target, ignore_errors=True)
    with new_folder(target) as folder:
        DQAE.from_pretrained(run).save_pretrained(folder, _notes(options.name, recipe, figures))
        card = (folder / "README.md").read_text().replace("# A depth-quantized auto-encoder", f"# {options.name}")
        (folder / "README.md").write_text(card.replace(_ANY_NAME, options.name))
        if recipe.prior is not None:
            CodePrior.from_pretrained(run).half().save_pretrained(folder / "prior")  # loads as float32 again
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"{target}: {size / 2**20:.2f} MiB")


def _one_source(places: list[str], folder: Path) -> str:
    if len(places) == 1:
        return places[0]
    if not folder.exists():
        join_sources(places, folder)
    return str(folder)


def _train(recipe: Recipe, data: str, run: Path) -> None:
    if not is_run(run):
        _depthq("train", "--data", data, "--out", str(run), *recipe.train)
    elif _last_step(RunFolder(run).metrics) < _steps(recipe.train):
        _depthq("train", "--out", str(run), "--resume")
    prior = RunFolder(RunFolder(run).prior)
    if recipe.prior is not None and not prior.config.is_file():
        _depthq("prior", str(run), "--data", data, *recipe.prior)


def _steps(options: tuple[str, ...]) -> int:
    return next(int(option.removeprefix("--steps=")) for option in options if option.startswith("--steps="))


def _last_step(metrics: Path) -> int:
    return json.loads(metrics.read_text().splitlines()[-1])["step"]


def _measured(run: Path, data: str) -> dict:
    """Of the test images: of the bundled photos whole."""
    out = io.StringIO()
    with redirect_stdout(out):
        _depthq("evaluate", str(run), "--data", data, "--json")
    return json.loads(out.getvalue())


def _notes(name: str, recipe: Recipe, figures: dict[str, dict]) -> str:
    places = " ".join(f"--{source} {source}/" for source in recipe.data if source != BUNDLED)
    commands = [f"depthq train --data DATA --out RUN {' '.join(recipe.train)}"]
    if recipe.prior is not None:
        commands.append(f"depthq prior RUN {' '.join(recipe.prior)}")
    lines = ["", recipe.about, "", "## Training", ""]
    lines += [f"On the training images of {' and '.join(recipe.data)}. One command of a checkout makes it again:", ""]
    lines += ["```", f"python -m studies.weights {name} {places} --runs runs/", "```", "", "which runs", ""]
    lines += ["```", *commands, "```", "", "## Figures", ""]
    whole = "; the bundled photos are whole" if BUNDLED in recipe.data else ""
    lines += [f"Test images, which it has not seen{whole}.", ""]
    lines += [f"| | {' | '.join(figures)} |", f"| --- {'| --- ' * len(figures)}|"]
    lines += [f"| images | {' | '.join(str(measured['images']) for measured in figures.values())} |"]
    for key, label in FIGURES.items():
        values = [measured[key] for measured in figures.values()]
        if any(value is not None for value in values):
            lines.append(f"| {label} | {' | '.join('' if value is None else f'{value:.4g}' for value in values)} |")
    return "\n".join([*lines, "", "## Licence", "", recipe.licence, ""])


def _depthq(*arguments: str) -> None:
    if depthq(list(arguments)) != 0:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
