"""How smoothly codes lead from one image to another: seen by a trained network, beside a blend of the pixels.

    python -m studies.interpolation runs/a runs/b --data cifar10/ --out interpolation.json \
        --backbone efficientnet_lite_pytorch:EfficientNet.from_name:efficientnet-lite0 --weights efficientnet-lite0.pth

For each trained model and pair of test images, four paths of M steps lead from what one image's codes decode to, to
what the other's do. "pixels" blends the two pictures. "nearest" blends what the encoder makes of the two images and
takes the codes nearest to that. "codebooks" takes one more codebook from the second image at each step, at all
positions; "positions" an M-th of the positions more, with all their codebooks.

The distance of two images is that of a network's maps of them: at each position the vector of all channels is brought
to length 1; squared differences are averaged over positions and summed over layers, and the root is taken, so that no
path is shorter than the straight one. Three figures of a path, means over pairs:

- length: of all steps together, over the distance of the ends (1: no detour);
- longest step: over the distance of the ends (1 / M: straight and even; 1: one jump);
- detail: squared differences of neighbouring pixels in the steps at the middle, over those at the ends (1: none lost).

Codes of one level.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor, nn

from depthq.codes import Codes
from depthq.data import evaluation_loader, open_images
from depthq.features.backbones import NORMALIZATIONS, load_backbone
from depthq.models import DQAE
from depthq.report.mixing import mix_codebooks, mix_positions
from depthq.runs import load_model
from studies.kept_rows import by_name, kept_rows

PATHS = ("pixels", "nearest", "codebooks", "positions")
FIGURES = ("length", "longest_step", "detail")
LAYERS = ("_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15")
"""Of EfficientNet-lite0: the last maps at a quarter, an eighth, a sixteenth and a thirty-second of the image's size."""


class Eye:
    """Distances of images as a network's layers see them.

    Args:
        network: Any network, in eval mode.
        layers: Names of layers that give maps.
        normalize: Makes of pixels 0..255 what the network expects.
        image_size: Pixels a side that images are brought to.
    """

    def __init__(self, network: nn.Module, layers: tuple[str, ...], normalize: Callable, image_size: int):
        self.network, self.normalize, self.image_size = network, normalize, image_size
        self._seen: list[Tensor] = []
        for layer in layers:
            network.get_submodule(layer).register_forward_hook(lambda *call: self._seen.append(call[-1].clone()))

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """Of each layer the maps of images (B, 3, H, W) in 0..255, each position's vector of length 1."""
        size = (self.image_size, self.image_size)
        resized = nn.functional.interpolate(images.float(), size, mode="bilinear", align_corners=False)
        self._seen = []
        self.network(self.normalize(resized))
        return [nn.functional.normalize(maps, dim=1) for maps in self._seen]

    def distances(self, path: Tensor) -> tuple[Tensor, Tensor]:
        """Of a path (T + 1, B, 3, H, W): each step's (T, B), and that of its ends (B,)."""
        squares, direct = torch.zeros(len(path) - 1, path.shape[1]), torch.zeros(path.shape[1])
        for maps in self.maps(path.flatten(0, 1)):
            steps = maps.unflatten(0, path.shape[:2])
            squares += (steps[1:] - steps[:-1]).square().sum(2).mean((2, 3))
            direct += (steps[-1] - steps[0]).square().sum(1).mean((1, 2))
        return squares.sqrt(), direct.sqrt()


@torch.no_grad()
def path_between(model: DQAE, first: Tensor, second: Tensor, kind: str) -> Tensor:
    """From some images to others, both uint8 (B, 3, H, W), by a path of one of `PATHS`: float (M + 1, B, 3, H, W)."""
    a, b = model.encode(first), model.encode(second)
    num_steps, num_positions = model.config.num_codebooks, a.levels[0].shape[2:].numel()
    counts = range(1, num_steps)
    ends = model.decode(a).float(), model.decode(b).float()
    if kind == "pixels":
        between = [torch.lerp(*ends, count / num_steps) for count in counts]
    elif kind == "nearest":
        latents = latents_of(model, first), latents_of(model, second)
        between = [decode_latents(model, torch.lerp(*latents, count / num_steps)) for count in counts]
    elif kind == "codebooks":
        between = [model.decode(mix_codebooks(a, b, count)) for count in counts]
    else:
        between = [model.decode(mix_positions(a, b, round(count / num_steps * num_positions))) for count in counts]
    return torch.stack([ends[0], *(image.float() for image in between), ends[1]])


@torch.no_grad()
def latents_of(model: DQAE, images: Tensor) -> Tensor:
    """What the one level's quantizer is given of images."""
    seen: list[Tensor] = []
    (level,) = model.levels
    handle = level.quantizer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    handle.remove()
    return seen[0]


def decode_latents(model: DQAE, latents: Tensor) -> Tensor:
    """Images uint8 (B, 3, H, W) of the codes nearest to latents."""
    (level,) = model.levels
    return model.decode(Codes((level.quantizer.encode(latents),), model.codebook_sizes))


def detail_kept(path: Tensor) -> Tensor:
    """(B,): squared differences of neighbours in the middle of a path (T + 1, B, 3, H, W), over those at its ends."""
    squares = path.diff(dim=-1).square().mean((2, 3, 4)) + path.diff(dim=-2).square().mean((2, 3, 4))
    middle = squares[[(len(path) - 1) // 2, len(path) // 2]]  # one and the same if the number of steps is even
    return middle.mean(0) / squares[[0, -1]].mean(0)


def measure(model: DQAE, images: Tensor, eye: Eye) -> dict[str, dict[str, float]]:
    """Of each kind of path its `FIGURES`; images (2 N, 3, H, W) are N pairs."""
    found = {kind: {name: [] for name in FIGURES} for kind in PATHS}
    for pairs in images.unflatten(0, (-1, 2)).split(10):
        for kind in PATHS:
            path = path_between(model, pairs[:, 0], pairs[:, 1], kind)
            steps, direct = eye.distances(path)
            found[kind]["length"] += (steps.sum(0) / direct).tolist()
            found[kind]["longest_step"] += (steps.amax(0) / direct).tolist()
            found[kind]["detail"] += detail_kept(path).tolist()
    return {kind: {name: fmean(values) for name, values in figures.items()} for kind, figures in found.items()}


def table(rows: list[dict]) -> str:
    """Markdown: the figures of each path, mean and standard deviation over a quantizer's runs."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["quantizer"] + (", cosine" if row["distance"] == "cosine" else ""), []).append(row)
    lines = ["| codes of | path | length | longest step | detail |", "| --- | --- | --- | --- | --- |"]
    for name, of in groups.items():
        for kind in PATHS:
            cells = [_over_runs([row[kind][figure] for row in of]) for figure in FIGURES]
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _over_runs(values: list[float]) -> str:
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs of one level, all of one M")
    parser.add_argument("--data", required=True, help="as in depthq train")
    parser.add_argument("--pairs", type=int, default=100, help="of test images, the first ones")
    parser.add_argument("--backbone", required=True, help="as in depthq density")
    parser.add_argument("--weights", type=Path, help="as in depthq density")
    parser.add_argument("--normalize", choices=NORMALIZATIONS, default="symmetric", help="as in depthq density")
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    parser.add_argument("--image-size", type=int, default=128, help="pixels a side that the backbone is shown")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file; rows that it has are not made again")
    args = parser.parse_args()
    runs = by_name(parser, args.runs)
    network = load_backbone(args.backbone, args.weights)
    eye = Eye(network, tuple(args.layers), NORMALIZATIONS[args.normalize], args.image_size)
    images = torch.cat(list(evaluation_loader(open_images(args.data, "test"), batch_size=50, limit=2 * args.pairs)))

    def of_run(run: Path) -> dict:
        model = load_model(run)
        row = {"quantizer": model.config.quantizer, "distance": model.config.distance}
        return row | measure(model, images, eye)

    print(table(kept_rows(args.out, {name: partial(of_run, run) for name, run in runs.items()})))


if __name__ == "__main__":
    main()
