"""Lossy files: archives of depthq beside JPEG, WebP and JPEG XL, PSNR over the files' own bits per pixel.

    python benchmarks/lossy.py                                     # the shipped model on bundled photos
    python benchmarks/lossy.py runs/m1 runs/m5 --data cifar10/ --out curve.png

A run is one point, with its prior if it has one; a codec has one at each of some qualities. Images are the centre
crops of the data's test split. Those of less than 64 pixels a side are one mosaic to a codec, whose headers would
else be most of it; an archive of ours is always one file. PSNR is that of the squared error of all pixels.
"""

import argparse
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pillow_jxl  # noqa: F401  registers the format
import torch
from image_files import mosaic, read, weights_bits, write
from matplotlib.ticker import FuncFormatter
from measure import environment
from torch import Tensor

from depthq.cli.model_and_data import MODEL_HELP, model_folder
from depthq.codecs import SMALL_SIDE
from depthq.coding import Archive
from depthq.data import evaluation_loader, open_images
from depthq.files import replacing
from depthq.report.plots import new_figure
from depthq.runs import load_model, load_prior

QUALITIES = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95)
CODECS = {
    "JPEG": {"format": "JPEG", "optimize": True},
    "WebP": {"format": "WEBP", "method": 6},
    "JPEG XL": {"format": "JXL", "effort": 9},
}


def main() -> None:
    args = parse_arguments()
    images = torch.cat(list(evaluation_loader(open_images(args.data, "test"), batch_size=64, limit=args.limit)))
    ours = sorted((our_point(run, images) for run in args.runs), key=lambda row: row["bits_per_pixel"])
    codecs = {name: list(codec_curve(name, images)) for name in CODECS}
    for row in [*ours, *(row for curve in codecs.values() for row in curve)]:
        print(json.dumps(row))
    print(table(ours, codecs))
    print(json.dumps({"images": len(images), **environment()}))
    if args.out:
        draw(ours, codecs, args.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=model_folder, nargs="*", help=MODEL_HELP)
    parser.add_argument("--data", default="bundled", help="as for depthq train")
    parser.add_argument("--limit", type=int, help="only the first so many images")
    parser.add_argument("--out", type=Path, help="a PNG file of the curves")
    args = parser.parse_args()
    args.runs = args.runs or [model_folder("photos-small")]
    return args


def our_point(run: Path, images: Tensor) -> dict:
    model, prior = load_model(run), load_prior(run)
    archive = Archive(model, prior)
    data = archive.compress([images], None)
    decoded = torch.stack([image for _, image in archive.decompress(data)])
    return {
        "name": f"{model.config.quantizer}, M = {model.config.num_codebooks}{', no prior' if prior is None else ''}",
        "run": run.name,
        "bits_per_pixel": bits_per_pixel([data], images),
        "psnr_db": psnr_db(squared_error(decoded, images), images),
        "weights_bits_per_pixel": weights_bits(model, prior) / images[:, 0].numel(),
    }


def codec_curve(name: str, images: Tensor) -> Iterator[dict]:
    pieces = [mosaic(images)] if min(images.shape[2:]) < SMALL_SIDE else list(images)
    for quality in QUALITIES:
        files = [write(piece, {**CODECS[name], "quality": quality}) for piece in pieces]
        error = sum(squared_error(read(file)[0], piece) for file, piece in zip(files, pieces, strict=True))
        yield {
            "name": f"{name}, quality {quality}",
            "bits_per_pixel": bits_per_pixel(files, images),
            "psnr_db": psnr_db(error, images),
        }


def bits_per_pixel(files: list[bytes], images: Tensor) -> float:
    return 8 * sum(map(len, files)) / images[:, 0].numel()


def squared_error(decoded: Tensor, originals: Tensor) -> float:
    return (decoded.double() - originals.double()).square().sum().item()


def psnr_db(squared_error: float, images: Tensor) -> float:
    return 10 * math.log10(255**2 * images.numel() / squared_error)


def bits_at(psnr_db: float, curve: list[dict]) -> float | None:
    """Bits per pixel of a codec at that PSNR, their logarithm linear between two qualities; None beyond them."""
    for low, high in pairwise(curve):
        if low["psnr_db"] <= psnr_db <= high["psnr_db"]:
            share = (psnr_db - low["psnr_db"]) / (high["psnr_db"] - low["psnr_db"])
            return low["bits_per_pixel"] * (high["bits_per_pixel"] / low["bits_per_pixel"]) ** share
    return None


def table(ours: list[dict], codecs: dict[str, list[dict]]) -> str:
    """Markdown: each run, and what codecs take for as much PSNR."""
    lines = [f"| depthq | PSNR, dB | bits/pixel | {' | '.join(codecs)} |", f"|{' --- |' * (3 + len(codecs))}"]
    for row in ours:
        bits = [bits_at(row["psnr_db"], curve) for curve in codecs.values()]
        cells = ["" if each is None else f"{each:.3f}" for each in bits]
        lines.append(f"| {row['name']} | {row['psnr_db']:.2f} | {row['bits_per_pixel']:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(ours: list[dict], codecs: dict[str, list[dict]], out: Path) -> None:
    figure = new_figure(7.0, 4.8)
    axes = figure.add_subplot()
    for name, curve in {"depthq": ours, **codecs}.items():
        style = "o" if curve is ours else "-"
        axes.plot(*([row[key] for row in curve] for key in ("bits_per_pixel", "psnr_db")), style, label=name)
    for row in ours:
        place = (row["bits_per_pixel"], row["psnr_db"])
        axes.annotate(
            row["name"], place, (-4, 4), textcoords="offset points", ha="right", rotation=-35, fontsize="x-small"
        )
    axes.set(xscale="log", xlabel="bits per pixel of the files", ylabel="PSNR, dB")
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda bits, _: f"{bits:g}" if f"{bits:.0e}"[0] in "125" else ""))
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, loc="lower right")
    with replacing(out) as file:
        figure.savefig(file, format="png")


if __name__ == "__main__":
    main()
