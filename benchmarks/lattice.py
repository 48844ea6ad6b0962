"""The lattice of sub-pixel convolutions in flat areas of whole photographs: networks that start with and without it.

    python benchmarks/lattice.py --out lattice.png     # minutes: two networks, trained alike on bundled patches
    python benchmarks/lattice.py runs/photos           # of models or runs instead
    python benchmarks/lattice.py --steps 2             # seconds: checks that everything runs

The two start alike but for the sub-pixel convolutions: with the same weights for the four sub-pixels of a place (ICNR,
as `depthq.models.blocks` has it), or each with its own, as PyTorch draws them. Beside them stands `photos-small`, which
was trained for longer. Told of each bundled photo for testing: PSNR, and the energy at periods of 2 and 4 pixels in its
flat parts, relative to the original's there; 1 is as much as the photo itself has.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from measure import environment
from PIL import Image
from torch import Tensor, nn

from depthq.cli.model_and_data import MODEL_HELP, model_folder
from depthq.data import open_whole_images
from depthq.models import DQAE, DQAEConfig
from depthq.pixels import image_grid, pad_to_multiple, psnr_db
from depthq.runs import load_model
from depthq.training import DataConfig, RunConfig, TrainingConfig, train

BLOCK = 16
"""Side in pixels of the parts whose spectrum is taken."""
FLAT_SHARE = 0.25
"""Of all parts of a photo, those whose gray values vary least in the original."""
SHOWN, TIMES = 80, 3
"""Side in pixels of what is shown of each photo, and how many times it is enlarged."""


def main() -> None:
    args = parse_arguments()
    photos = open_whole_images("bundled", "test")
    originals = [torch.tensor(photos[index])[None] for index in range(len(photos))]
    names = [origin.id for origin in photos.origins(range(len(photos)))]
    shown = [[flattest(photo) for photo in originals]]
    started = {} if args.runs else both_starts(args.steps, args.seed)
    models = started | {run.name: load_model(run) for run in args.runs or [model_folder("photos-small")]}
    for model_name, model in models.items():
        decoded = [reconstruct(model, photo) for photo in originals]
        for name, photo, made in zip(names, originals, decoded, strict=True):
            figures = {"lattice": lattice_energy(made, photo), "psnr_db": psnr_db(made.float(), photo.float()).item()}
            print(json.dumps({"model": model_name, "photo": name, **figures, **environment()}))
        shown.append([flattest(photo, made) for photo, made in zip(originals, decoded, strict=True)])
    if args.out:
        draw(shown, args.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=model_folder, nargs="*", help=MODEL_HELP)
    parser.add_argument("--steps", type=int, default=400, help="of training, 64 patches of 32 x 32 each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a PNG file: a row of originals, then one for each model")
    return parser.parse_args()


def both_starts(steps: int, seed: int) -> dict[str, DQAE]:
    """Networks of two levels, trained by L2 from either start."""
    config = RunConfig(
        data=DataConfig(data="bundled"),
        model=DQAEConfig(channels=(32, 64), codebook_size=(128, 128)),
        training=TrainingConfig(steps=steps, warmup_steps=min(100, steps), seed=seed, precision="32-true"),
    )
    trained = {}
    for name in ("sub-pixels apart", "sub-pixels alike"):
        torch.manual_seed(seed)
        model = DQAE(config.model)
        if name == "sub-pixels apart":
            draw_sub_pixels_apart(model)
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            train(config, run, start_from=model)
            trained[name] = load_model(run)
    return trained


def draw_sub_pixels_apart(model: DQAE) -> None:
    """Weights of the sub-pixel convolutions as PyTorch starts any convolution."""
    for module in model.modules():
        if isinstance(module, nn.Sequential) and any(isinstance(part, nn.PixelShuffle) for part in module):
            next(part for part in module if isinstance(part, nn.Conv2d)).reset_parameters()


def reconstruct(model: DQAE, photo: Tensor) -> Tensor:
    """uint8 (1, 3, H, W)."""
    height, width = photo.shape[2:]
    return model.reconstruct(pad_to_multiple(photo, model.config.image_multiple))[:, :, :height, :width]


def lattice_energy(made: Tensor, original: Tensor) -> float:
    """Energy at periods of 2 and 4 pixels in the flat parts of an image, relative to that of the original there.

    Args:
        made: uint8 (1, C, H, W).
        original: The same; its parts decide which are flat.
    """
    parts, of_original = _parts(made), _parts(original)
    flat = of_original.flatten(1).var(1).argsort()[: max(1, round(FLAT_SHARE * len(of_original)))]
    return (_energy(parts[flat]) / _energy(of_original[flat])).item()


def _parts(image: Tensor) -> Tensor:
    """Gray values (N, 16, 16) of an image uint8 (1, C, H, W), without what is left at its lower and right edge."""
    gray = image[0].double().mean(0)
    return gray.unfold(0, BLOCK, BLOCK).unfold(1, BLOCK, BLOCK).flatten(0, 1)


def _energy(parts: Tensor) -> Tensor:
    """At frequencies of a half and a quarter per pixel, along either side or both."""
    spectrum = torch.fft.fft2(parts - parts.mean((1, 2), keepdim=True)).abs().square()
    at = spectrum[:, :: BLOCK // 4, :: BLOCK // 4]  # multiples of a quarter per pixel
    return at.sum() - at[:, 0, 0].sum()


def flattest(photo: Tensor, made: Tensor | None = None) -> Tensor:
    """Where a photo uint8 (1, C, H, W) varies least, of the photo or of what is made of it; (1, C, 80, 80)."""
    gray = photo[0].double().mean(0)
    windows = gray.unfold(0, SHOWN, BLOCK).unfold(1, SHOWN, BLOCK)
    row, column = divmod(int(windows.flatten(2).var(2).argmin()), windows.shape[1])
    source = photo if made is None else made
    return source[:, :, row * BLOCK : row * BLOCK + SHOWN, column * BLOCK : column * BLOCK + SHOWN]


def draw(rows: list[list[Tensor]], path: Path) -> None:
    grid = image_grid(*(torch.cat(row) for row in rows), columns=len(rows[0]))
    grid.resize((TIMES * grid.width, TIMES * grid.height), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
