"""What the first codebooks of a code are worth: PSNR from each prefix of runs' codes, over all test images.

python benchmarks/prefixes.py runs/with runs/without --data cifar10/
"""

import argparse
import json
from pathlib import Path

import torch
from measure import environment

from depthq.cli.model_and_data import MODEL_HELP, model_folder
from depthq.data import evaluation_loader, open_images
from depthq.report.prefixes import measure_prefixes
from depthq.runs import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=model_folder, nargs="*", help=MODEL_HELP)
    parser.add_argument("--data", default="bundled", help="as for depthq train; its test images")
    parser.add_argument("--limit", type=int, help="only the first so many images")
    args = parser.parse_args()
    images = torch.cat(list(evaluation_loader(open_images(args.data, "test"), batch_size=64, limit=args.limit)))
    for run in args.runs or [model_folder("photos-small")]:
        print(json.dumps({**psnr_of_prefixes(run, images), "images": len(images), **environment()}))


def psnr_of_prefixes(run: Path, images: torch.Tensor) -> dict:
    """PSNR by the prefix, mean over images uint8 (B, C, H, W)."""
    model = load_model(run)
    prefixes = measure_prefixes(model, images)
    return {
        "run": run.name,
        "quantizer": model.config.quantizer,
        "levels_and_codebooks": [(prefix.levels, prefix.codebooks) for prefix in prefixes],
        "psnr_db": [round(prefix.psnr_db, 4) for prefix in prefixes],
        "code_bits_per_pixel": [round(prefix.code_bits_per_pixel, 3) for prefix in prefixes],
    }


if __name__ == "__main__":
    main()
