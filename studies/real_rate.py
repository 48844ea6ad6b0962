"""Error at the bits that codes really take: those under a prior that is trained on them, not those of a formula.

    python -m studies.real_rate runs/a runs/b --data cifar10/ --priors priors/ --out real_rate.json

Of each trained model the codes of the training images are taken, and a prior is trained on them that predicts the codes
of a position one after the other, so that nothing that they say twice is paid for twice. Told are the squared error on
the test images and what a position of their codes costs: under that prior, by how often each code occurs, and if all
are alike.
"""

import argparse
import hashlib
import io
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.ticker import FormatStrFormatter
from PIL import Image

from depthq.codes import Codes
from depthq.data import Split, evaluation_loader, open_images
from depthq.files import replacing
from depthq.measure import measure
from depthq.models import DQAE
from depthq.priors import CodePrior, CountedPrior, UniformPrior
from depthq.priors.base import grids_of
from depthq.report.plots import new_figure
from depthq.runs import RunFolder, load_model, load_settings
from depthq.training import PriorConfig, PriorTrainingConfig, steps_done, train_prior
from depthq.units import nats_to_bits
from studies.kept_rows import by_name, kept_rows

SPLITS: tuple[Split, ...] = ("train", "test")
BATCH_SIZE = 100
COLOURS = {"depthwise": "#3b6ea8", "shared": "#d98032", "residual": "#4f9d69", "scalar": "#8c5fa8", "binary": "#b04a5a"}


@torch.no_grad()
def codes_of(model: DQAE, data: str, split: Split, limit: int | None) -> Codes:
    """Those of a split's first images."""
    loader = evaluation_loader(open_images(data, split), batch_size=BATCH_SIZE, limit=limit)
    return Codes.cat(model.encode(batch) for batch in loader)


@torch.no_grad()
def bits_per_position(prior: CodePrior, codes: Codes) -> float:
    """Mean cost of all codes of a position of the finest level, with those of coarser levels that belong to it."""
    nats = sum(
        prior.nll_nats(codes[start : start + BATCH_SIZE]).sum().item() for start in range(0, len(codes), BATCH_SIZE)
    )
    return nats_to_bits(nats / (len(codes) * codes.levels[-1].shape[2:].numel()))


def fingerprint_of(codes: Codes, model: DQAE) -> str:
    """SHA-256 of codes and of the model that made them."""
    digest = hashlib.sha256(model.fingerprint().encode())
    for level in codes.levels:
        digest.update(level.cpu().numpy().tobytes())
    return digest.hexdigest()


def trained_prior(codes: Codes, model: DQAE, folder: Path, training: PriorTrainingConfig) -> CodePrior:
    """A prior from a folder, trained there from where a killed run left it.

    Raises:
        ValueError: If that is a prior of other codes, or does not say of which.
    """
    file, fingerprint = folder / "trained_on.sha256", fingerprint_of(codes, model)
    if steps_done(folder) and (not file.exists() or file.read_text() != fingerprint):
        raise ValueError(
            f"{folder} must hold a prior of this very model's codes; it is of others, or does not say of which; "
            "move it away"
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(fingerprint)
    if steps_done(folder) < training.steps:
        train_prior(codes, folder, prior=PriorConfig(factorization="sequential"), training=training, progress=False)
    return CodePrior.from_pretrained(folder)


def measure_run(
    run: Path, data: str, priors: Path, training: PriorTrainingConfig, limits: dict[Split, int | None]
) -> dict:
    """A row: the model's error, and its codes' bits per position."""
    model, settings = load_model(run), load_settings(RunFolder(run).config)
    learned, test = (codes_of(model, data, split, limits[split]) for split in SPLITS)
    images = evaluation_loader(open_images(data, "test"), batch_size=BATCH_SIZE, limit=limits["test"])
    row = {name: settings[name] for name in ("quantizer", "num_codebooks", "steps", "seed")}
    row["mse_normalized"] = measure(model, images).mse_normalized
    row["uniform"] = bits_per_position(UniformPrior(test.codebook_sizes, grids_of(test)), test)
    row["counted"] = bits_per_position(CountedPrior.from_codes([learned]), test)
    row["prior"] = bits_per_position(trained_prior(learned, model, priors / run.name, training), test)
    return row | {"prior_steps": training.steps}


def table(rows: list[dict]) -> str:
    """Markdown: each run, the fewest real bits first."""
    head = ["codes of", "squared error", "bits: uniform", "counted", "prior", "error over depthwise's at as many"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in sorted(rows, key=lambda row: row["prior"]):
        bits = [row[name] for name in ("uniform", "counted", "prior")]
        cells = [_name(row), f"{row['mse_normalized']:.4f}", *(f"{each:.2f}" for each in bits)]
        error = None if row["quantizer"] == "depthwise" else depthwise_error_at(row["prior"], rows)
        cells.append(f"{row['mse_normalized'] / error:.2f}" if error else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def depthwise_error_at(bits: float, rows: list[dict]) -> float | None:
    """The error of depthwise codes at so many real bits, its logarithm linear between two runs; None beyond
    the outermost."""
    own = sorted((row["prior"], row["mse_normalized"]) for row in rows if row["quantizer"] == "depthwise")
    for (low, worse), (high, better) in pairwise(own):
        if low <= bits <= high:
            return worse * (better / worse) ** ((bits - low) / (high - low))
    return None


def _name(row: dict) -> str:
    return f"{row['quantizer']}, M = {row['num_codebooks']}"


def plot(rows: list[dict]) -> Image.Image:
    """Squared error over real bits, a line per quantizer along M; nominal bits hollow, joined by a thin line."""
    figure = new_figure(7.0, 4.8)
    axes = figure.add_subplot()
    for quantizer, colour in COLOURS.items():
        own = sorted((row for row in rows if row["quantizer"] == quantizer), key=lambda row: row["num_codebooks"])
        real, nominal, errors = ([row[name] for row in own] for name in ("prior", "uniform", "mse_normalized"))
        if own:
            axes.plot(real, errors, color=colour, marker="o", label=quantizer)
            axes.plot(nominal, errors, color=colour, marker="o", fillstyle="none", linestyle="none")
            axes.hlines(errors, real, nominal, color=colour, linewidth=0.6, linestyle=":")
        for row in own:
            place = (row["prior"], row["mse_normalized"])
            axes.annotate(
                f"M = {row['num_codebooks']}", place, (3, 3), textcoords="offset points", fontsize="small", rotation=45
            )
    axes.set(xlabel="bits per position: under a trained prior; hollow, M log2 K", ylabel="L2, normalised space")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(FormatStrFormatter("%g"))
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return Image.open(stream)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of runs; none draws what there is")
    parser.add_argument("--data", help="as in depthq train")
    parser.add_argument("--train-images", type=int, help="only the first so many")
    parser.add_argument("--test-images", type=int, help="only the first so many")
    parser.add_argument("--priors", type=Path, help="where priors are trained; a killed run goes on from there")
    parser.add_argument("--steps", type=int, default=1000, help="of each prior")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file; rows that it has are not made again")
    parser.add_argument("--plot", type=Path, help="a PNG file")
    args = parser.parse_args()
    if args.runs and not (args.data and args.priors):
        parser.error("runs need --data and --priors")
    limits: dict[Split, int | None] = {"train": args.train_images, "test": args.test_images}
    training = PriorTrainingConfig(steps=args.steps, validate_every=args.steps)
    make = {
        name: partial(measure_run, run, args.data, args.priors, training, limits)
        for name, run in by_name(parser, args.runs).items()
    }
    rows = kept_rows(args.out, make)
    if args.plot:
        with replacing(args.plot) as file:
            plot(rows).save(file, "PNG")
    print(table(rows))


if __name__ == "__main__":
    main()
