"""What codes are good for: classes of images told from their codes alone.

    python -m studies.downstream runs/a runs/b --data cifar10/ --out downstream.json

For each trained model the codes of images are frozen, and two classifiers are trained on them. The linear one weighs
each code at each position and codebook (one-hot, so nothing of the codebook itself is used). The small one learns an
embedding of 16 numbers for each code, puts two convolutions on it and takes the mean over each quarter. The same two on
the pixels, brought to the codes' grid by a convolution, say what codes lose. Codes of one level, images with labels.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor, nn

from depthq.data import ImageBatches, Split, open_images
from depthq.models import DQAE
from depthq.runs import load_model
from studies.kept_rows import by_name, kept_rows

EMBEDDING_DIM, WIDTH = 16, 96


class LinearOnCodes(nn.Module):
    """A weight per class for each code at each place."""

    def __init__(self, num_places: int, codebook_size: int, num_classes: int):
        super().__init__()
        self.offsets = nn.Buffer(torch.arange(num_places) * codebook_size)
        self.weights = nn.EmbeddingBag(num_places * codebook_size, num_classes, mode="sum")
        nn.init.zeros_(self.weights.weight)

    def forward(self, codes: Tensor) -> Tensor:
        return self.weights(codes.flatten(1) + self.offsets)


class SmallOnMaps(nn.Module):
    """Two convolutions on maps (B, C, H, W), and the mean over each quarter of the positions."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * WIDTH, num_classes),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps)


class SmallOnCodes(nn.Module):
    """An embedding for each code of each codebook, then `SmallOnMaps`."""

    def __init__(self, num_codebooks: int, codebook_size: int, num_classes: int):
        super().__init__()
        self.offsets = nn.Buffer((torch.arange(num_codebooks) * codebook_size)[:, None, None])
        self.embedding = nn.Embedding(num_codebooks * codebook_size, EMBEDDING_DIM)
        self.maps = SmallOnMaps(num_codebooks * EMBEDDING_DIM, num_classes)

    def forward(self, codes: Tensor) -> Tensor:
        embedded = self.embedding(codes + self.offsets)  # (B, M, H, W, 16)
        return self.maps(embedded.permute(0, 1, 4, 2, 3).flatten(1, 2))


def codes_of(model: DQAE, data: str, split: Split, limit: int | None) -> tuple[Tensor, Tensor]:
    """Codes int64 (B, M, H, W) and labels (B,)."""
    codes, labels = [], []
    for batch in ImageBatches(open_images(data, split), batch_size=64, limit=limit):
        (level,) = model.encode(batch.images).levels
        codes.append(level)
        labels += [origin.label for origin in batch.origins]
    return torch.cat(codes), torch.tensor(labels)


def pixels_of(data: str, split: Split, limit: int | None) -> tuple[Tensor, Tensor]:
    """Pixels in -1..1 (B, 3, 32, 32) and labels (B,)."""
    pixels, labels = [], []
    for batch in ImageBatches(open_images(data, split), batch_size=64, limit=limit):
        pixels.append(batch.images.float() / 127.5 - 1)
        labels += [origin.label for origin in batch.origins]
    return torch.cat(pixels), torch.tensor(labels)


def accuracy(
    make: Callable[[], nn.Module],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
) -> float:
    """Share of test images whose class is told, after training from one seed."""
    torch.manual_seed(0)
    classifier = make()
    optimizer = torch.optim.AdamW(classifier.parameters(), learning_rate, weight_decay=weight_decay)
    steps = epochs * (len(train[0]) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(train[0])).split(128)[: len(train[0]) // 128]:
            loss = nn.functional.cross_entropy(classifier(train[0][rows]), train[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        told = [
            (classifier(x).argmax(1) == y).float() for x, y in zip(test[0].split(500), test[1].split(500), strict=True)
        ]
    return torch.cat(told).mean().item()


def measure(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], size: int, epochs: int) -> dict[str, float]:
    """Accuracies of both classifiers on codes of codebooks of `size`."""
    (_, num_codebooks, height, width), classes = train[0].shape, int(train[1].max()) + 1
    linear = accuracy(
        lambda: LinearOnCodes(num_codebooks * height * width, size, classes),
        *(train, test),
        epochs=epochs,
        learning_rate=3e-3,
        weight_decay=1.0,  # most codes at most places are rare
    )
    small = accuracy(
        lambda: SmallOnCodes(num_codebooks, size, classes),
        *(train, test),
        epochs=epochs,
        learning_rate=3e-3,
        weight_decay=0.05,
    )
    return {"linear": linear, "small": small}


def measure_pixels(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], epochs: int) -> dict[str, float]:
    """Accuracies of both classifiers on pixels."""
    (_, channels, height, width), classes = train[0].shape, int(train[1].max()) + 1
    options = {"epochs": epochs, "weight_decay": 0.05}
    linear = accuracy(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes)),
        *(train, test),
        learning_rate=3e-4,
        **options,
    )
    small = accuracy(
        lambda: nn.Sequential(nn.Conv2d(channels, 80, 4, stride=4), SmallOnMaps(80, classes)),
        *(train, test),
        learning_rate=3e-3,
        **options,
    )
    return {"linear": linear, "small": small}


def table(rows: list[dict]) -> str:
    """Markdown: accuracies of each quantizer, mean and standard deviation over its runs, the best small one first."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        cosine = ", cosine" if row.get("distance") == "cosine" else ""
        groups.setdefault(row.get("quantizer", "pixels") + cosine, []).append(row)
    ordered = sorted(groups.items(), key=lambda group: -fmean(row["small"] for row in group[1]))
    lines = ["| codes of | linear | small |", "| --- | --- | --- |"]
    return "\n".join(
        [*lines, *(f"| {name} | {_share(of, 'linear')} | {_share(of, 'small')} |" for name, of in ordered)]
    )


def _share(rows: list[dict], name: str) -> str:
    shares = [100 * row[name] for row in rows]
    return f"{fmean(shares):.1f} %" + (f" ± {stdev(shares):.1f} ({len(shares)})" if len(shares) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs of one level, all of one K")
    parser.add_argument("--data", required=True, help="images with labels, as in depthq train")
    parser.add_argument("--train-images", type=int, help="only the first so many")
    parser.add_argument("--test-images", type=int, help="only the first so many")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file; rows that it has are not made again")
    args = parser.parse_args()

    def of_pixels() -> dict:
        train, test = (pixels_of(args.data, split, limit) for split, limit in limits.items())
        return measure_pixels(train, test, args.epochs)

    def of_run(run: Path) -> dict:
        model = load_model(run)
        ((size, *_),) = model.codebook_sizes
        train, test = (codes_of(model, args.data, split, limit) for split, limit in limits.items())
        row = {"quantizer": model.config.quantizer, "distance": model.config.distance}
        return row | measure(train, test, size, args.epochs)

    limits: dict[Split, int | None] = {"train": args.train_images, "test": args.test_images}
    runs = by_name(parser, args.runs, "pixels")
    make = {"pixels": of_pixels} | {name: partial(of_run, run) for name, run in runs.items()}
    print(table(kept_rows(args.out, make)))


if __name__ == "__main__":
    main()
