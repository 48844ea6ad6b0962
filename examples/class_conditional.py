"""A small class-conditional transformer on codes from a folder of shards, and images drawn class by class.

    depthq encode mnist-tiny --data mnist/ --split train --workers 2 --out codes/
    python examples/class_conditional.py codes/ --model mnist-tiny --steps 1000 --out digits.png

Codes of an image stand in one row: level by level, position by position, codebook by codebook. Shards are read one
after the other, in another order each time, and no more than one is in memory.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from depthq.cli.model_and_data import model_folder
from depthq.codes import Codes
from depthq.codes.file import read_codes, read_header
from depthq.codes.shards import ShardFolder
from depthq.pixels import image_grid
from depthq.runs import load_model
from depthq.units import nats_to_bits


class ShardStream(IterableDataset[tuple[Tensor, Tensor]]):
    """Rows of codes int64 (L,) with their labels, shard after shard, without end."""

    def __init__(self, folder: Path, seed: int):
        self.files, self.seed = ShardFolder.open(folder).files(), seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = random.Random(self.seed)
        while True:
            for file in generator.sample(self.files, len(self.files)):
                batches = list(read_codes(file))
                rows = torch.cat([as_rows(batch.codes) for batch in batches])
                labels = torch.tensor([label for batch in batches for label in batch.labels])
                for index in generator.sample(range(len(rows)), len(rows)):
                    yield rows[index], labels[index]


def as_rows(codes: Codes) -> Tensor:
    """int64 (B, L): level by level, position by position, codebook by codebook."""
    return torch.cat([level.flatten(2).transpose(1, 2).flatten(1) for level in codes.levels], dim=1)


def from_rows(rows: Tensor, like: Codes) -> Codes:
    """The codes that `as_rows` makes these rows of; `like` tells their shapes."""
    levels, start = [], 0
    for num_codebooks, *positions in like.shapes:
        length = num_codebooks * torch.Size(positions).numel()
        level = rows[:, start : start + length].view(len(rows), -1, num_codebooks).transpose(1, 2)
        levels.append(level.reshape(len(rows), num_codebooks, *positions))
        start += length
    return Codes(tuple(levels), like.codebook_sizes)


class Transformer(nn.Module):
    """p(each code | the codes before it, the class)."""

    def __init__(self, num_classes: int, codebook_size: int, length: int, width: int = 128, depth: int = 4):
        super().__init__()
        self.classes, self.codes = nn.Embedding(num_classes, width), nn.Embedding(codebook_size, width)
        self.places = nn.Parameter(torch.randn(length, width) / width**0.5)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, codebook_size)

    def forward(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, L' + 1, K) of the codes at places 0..L', of rows (B, L') and labels (B,)."""
        before = torch.cat([self.classes(labels)[:, None], self.codes(rows)], dim=1)
        before = before + self.places[: before.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(before.shape[1])
        return self.head(self.layers(before, mask=mask, is_causal=True))

    @torch.no_grad()
    def sample(self, labels: Tensor) -> Tensor:
        """Rows int64 (B, L), drawn one code after the other."""
        rows = torch.empty(len(labels), 0, dtype=torch.int64)
        for _ in range(len(self.places)):
            probabilities = self(rows, labels)[:, -1].softmax(-1)
            rows = torch.cat([rows, torch.multinomial(probabilities, 1)], dim=1)
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codes", type=Path, help="a folder of shards with labels, of images of one size")
    parser.add_argument("--model", required=True, help="what made the codes, as in depthq encode")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("classes.png"))
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    header, first = read_header(args.codes), next(iter(read_codes(args.codes)))
    sizes = {size for level in header.codebook_sizes for size in level}
    num_classes = 1 + max(label for batch in read_codes(args.codes) for label in batch.labels)
    transformer = Transformer(num_classes, max(sizes), as_rows(first.codes).shape[1])
    optimizer = torch.optim.AdamW(transformer.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=args.steps)
    loader = DataLoader(ShardStream(args.codes, args.seed), batch_size=args.batch_size)
    for step, (rows, labels) in zip(range(1, args.steps + 1), loader, strict=False):
        loss = nn.functional.cross_entropy(transformer(rows[:, :-1], labels).transpose(1, 2), rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == args.steps:
            uniform = nats_to_bits(torch.tensor(max(sizes)).log().item())
            print(f"step {step}: {nats_to_bits(loss.item()):.3f} bits per code (of {uniform:.3f})", flush=True)

    transformer.eval()
    rows = transformer.sample(torch.arange(num_classes).repeat(8))
    images = load_model(model_folder(args.model)).decode(from_rows(rows, first.codes))
    image_grid(images, columns=num_classes).save(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
