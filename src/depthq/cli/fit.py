"""Learn codebooks of embeddings without a network: product quantization, or residual, by k-means.

examples:
  depthq fit embeddings.npy --num-codebooks 8 --codebook-size 256 --out pq/
  depthq fit items.parquet --column vector --quantizer residual --num-codebooks 3 --balanced --out semantic-ids/
  depthq fit embeddings.npy --num-codebooks 8 --codebook-size 256 --index faiss --out pq/

Takes a .npy array (N, D), memory-mapped, or a parquet file with a column of lists of numbers; either may be larger
than memory. Codebooks are learned by k-means on a sample of the vectors (256 per code, as many as faiss takes), then
all vectors are encoded. Writes into --out: the quantizer (load it with from_pretrained), codes.parquet with one row per
vector, figures.json, and with --index faiss an index of all vectors, index.faiss. --balanced has each code of a
codebook used about as often as any other, as semantic IDs want it. Several processes (torchrun) share the sample.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt
from torch import Tensor

from depthq.cli.model_and_data import device_name
from depthq.cli.paths import user_path
from depthq.codes import Codes, CodesBatch
from depthq.files import check_is_new, is_empty_folder, new_folder
from depthq.progress import progress
from depthq.quantizers import DepthwiseQuantizer, LearnedQuantizer, ResidualQuantizer
from depthq.quantizers.balanced import BalancedCodes
from depthq.quantizers.fitting import draw_rows
from depthq.units import nats_to_bits

ROWS_AT_ONCE = 32_768
SAMPLES_PER_CODE = 256
"""Vectors of the sample per code of a codebook, as faiss takes at most."""
KINDS: dict[str, type[DepthwiseQuantizer] | type[ResidualQuantizer]] = {
    "depthwise": DepthwiseQuantizer,
    "residual": ResidualQuantizer,
}


@dataclass(frozen=True)
class Settings:
    embeddings: Path
    column: str | None
    quantizer: Literal["depthwise", "residual"]
    num_codebooks: int
    codebook_size: int
    iterations: int
    sample: int | None
    balanced: bool
    index: Literal["faiss"] | None
    seed: int
    device: str
    out: Path


@dataclass(frozen=True)
class Figures:
    """What the codes of all vectors come to."""

    vectors: int
    mse: float
    """Squared error per entry."""
    mse_standardized: float
    """The same over the variance of all entries about their column's mean: 1 is no better than the mean vector."""
    bits_per_vector: float
    """M log2 K."""
    entropy_bits: list[float]
    """Of each codebook's code."""
    mean_mutual_information_bits: float | None
    """Of pairs of codebooks, on average, by "shuffle", which is right for independent codes however few the vectors;
    None where there is no pair, or its table would be too large."""
    usage: list[float]
    """Share of each codebook's codes that occur."""
    colliding: int
    """Vectors whose whole code another one has as well."""


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    parser.add_argument("embeddings", type=user_path, help="a .npy or .parquet file")
    parser.add_argument("--column", help="of a parquet file, where several hold lists of numbers")
    parser.add_argument(
        "--quantizer", choices=tuple(KINDS), default="depthwise", help="slices of the vector, or stages (semantic IDs)"
    )
    parser.add_argument("--num_codebooks", type=PositiveInt, default=8, help="M")
    parser.add_argument("--codebook_size", type=PositiveInt, default=256, help="K")
    parser.add_argument("--iterations", type=PositiveInt, default=25, help="of k-means")
    parser.add_argument("--sample", type=PositiveInt, help="vectors that codebooks are learned from (256 per code)")
    parser.add_argument("--balanced", action="store_true", help="use all codes of a codebook about equally often")
    parser.add_argument("--index", choices=("faiss",), help="write an index of all vectors as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--out", type=user_path, required=True, help="the folder to write")
    options = parser.parse_args(arguments)
    return Settings(**{name: getattr(options, name) for name in Settings.__dataclass_fields__})


def run(settings: Settings) -> None:
    from depthq.data.embeddings import open_embeddings

    if not is_empty_folder(settings.out):
        check_is_new(settings.out)
    vectors = open_embeddings(settings.embeddings, settings.column)
    _check(settings, vectors)
    with _processes() as (rank, world_size):
        quantizer = _fit(settings, vectors, rank, world_size)
    if rank:
        return
    with new_folder(settings.out) as folder:
        figures = _encode_all(settings, quantizer, vectors, folder)
        quantizer.save_pretrained(folder)
        (folder / "figures.json").write_text(json.dumps(asdict(figures), indent=2))
    _show(settings, figures)


def _check(settings: Settings, vectors: np.ndarray) -> None:
    """What can be known before the work begins."""
    num_vectors, dim = vectors.shape
    if settings.quantizer == "depthwise" and settings.num_codebooks > dim:
        raise ValueError(f"num_codebooks must be at most {dim}, the size of a vector; got {settings.num_codebooks}")
    if num_vectors < settings.codebook_size:
        raise ValueError(
            f"embeddings must hold at least as many vectors as a codebook has codes, {settings.codebook_size}; got "
            f"{num_vectors}; take a smaller codebook_size"
        )
    if settings.sample is not None and settings.sample < settings.codebook_size:
        raise ValueError(
            f"sample must hold at least as many vectors as a codebook has codes, {settings.codebook_size}; got "
            f"{settings.sample}; take more, or a smaller codebook_size"
        )
    if settings.index and (settings.quantizer != "depthwise" or settings.balanced):
        raise ValueError(
            "index must be left out for residual or balanced codes, which faiss's product quantizer does not know; got "
            f"{settings.index}"
        )
    if settings.index:  # refuses what faiss cannot do, and says if it is missing
        _index(_quantizer(settings, dim))


def _quantizer(settings: Settings, dim: int) -> DepthwiseQuantizer | ResidualQuantizer:
    torch.manual_seed(settings.seed)
    # A decay of 0: each step is one iteration of k-means on the whole sample.
    make = KINDS[settings.quantizer]
    quantizer = make(dim, settings.num_codebooks, settings.codebook_size, axis=-1, decay=0.0)
    return quantizer.to(settings.device)


def _index(quantizer: LearnedQuantizer) -> Any:
    assert isinstance(quantizer, DepthwiseQuantizer)  # as _check has it
    return quantizer.to_faiss()


def _fit(settings: Settings, vectors: np.ndarray, rank: int, world_size: int) -> LearnedQuantizer:
    wanted = SAMPLES_PER_CODE * settings.codebook_size if settings.sample is None else settings.sample
    rows = draw_rows(np.random.default_rng(settings.seed), len(vectors), wanted)
    sample = _read(vectors, rows[rank::world_size], settings)
    quantizer = _quantizer(settings, vectors.shape[1])
    iterations = progress([sample] * settings.iterations, unit="iteration", what="k-means")
    return quantizer.fit(iterations, steps=settings.iterations, progress=False).eval()


def _encode_all(settings: Settings, quantizer: LearnedQuantizer, vectors: np.ndarray, folder: Path) -> Figures:
    from depthq.codes.file import write_codes

    encode = quantizer.encode
    if settings.balanced:
        rng, wanted = np.random.default_rng(settings.seed + 1), SAMPLES_PER_CODE * settings.codebook_size
        rows = draw_rows(rng, len(vectors), wanted)
        encode = BalancedCodes(quantizer, _read(vectors, rows, settings)).encode
    tally = _Tally(quantizer, vectors.shape[1])
    index = _index(quantizer) if settings.index else None

    def batches() -> Iterator[CodesBatch]:
        starts = range(0, len(vectors), ROWS_AT_ONCE)
        for start in progress(starts, unit="block", what="encode", total=len(starts)):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, len(vectors)))
            x = _read(vectors, rows, settings)
            codes = encode(x)
            tally.update(x, codes)
            if index is not None:
                index.add(x.cpu().numpy())
            yield CodesBatch(Codes((codes.cpu(),), (quantizer.codebook_sizes,)), ids=[str(row) for row in rows])

    write_codes(folder / "codes.parquet", batches(), model_fingerprint=None)
    if index is not None:
        import faiss

        faiss.write_index(index, str(folder / "index.faiss"))
    return tally.figures()


def _read(vectors: np.ndarray, rows: np.ndarray, settings: Settings) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(vectors[rows], dtype=np.float32))
    is_finite = x.isfinite().all(1)
    if not is_finite.all():
        row = rows[int((~is_finite).nonzero()[0])]
        raise ValueError(f"embeddings must be finite; got NaN or infinity in row {row}; drop such rows")
    return x.to(settings.device)


class _Tally:
    """Sums over blocks of vectors and their codes."""

    def __init__(self, quantizer: LearnedQuantizer, dim: int):
        from depthq.analysis import CodeCounts
        from depthq.analysis.counting import TABLES_LIMIT_BYTES

        self.quantizer = quantizer
        self.counts = CodeCounts((quantizer.codebook_sizes,), limit_bytes=TABLES_LIMIT_BYTES)
        self.vectors, self.squared_error = 0, 0.0
        self.sums, self.squares = torch.zeros(dim, dtype=torch.float64), 0.0
        self.whole_codes: list[np.ndarray] = []

    def update(self, x: Tensor, codes: Tensor) -> None:
        self.squared_error += float((self.quantizer.decode(codes) - x).double().square().sum())
        self.sums += x.double().sum(0).cpu()
        self.squares += float(x.double().square().sum())
        self.vectors += len(x)
        self.counts.update(codes.cpu())
        self.whole_codes.append(_whole(codes.cpu(), self.quantizer.codebook_sizes))

    def figures(self) -> Figures:
        from depthq.analysis import code_entropy

        level, numel = code_entropy(self.counts), self.vectors * len(self.sums)
        variance = self.squares / numel - float((self.sums / self.vectors).square().mean())
        mse = self.squared_error / numel
        _, repeats = np.unique(np.concatenate(self.whole_codes), return_counts=True)
        return Figures(
            vectors=self.vectors,
            mse=mse,
            mse_standardized=mse / variance if variance else 0.0,
            bits_per_vector=float(np.log2(self.quantizer.codebook_sizes).sum()),
            entropy_bits=level.entropy_bits.tolist(),
            mean_mutual_information_bits=self._mutual_information_bits(),
            usage=level.usage.tolist(),
            colliding=int(repeats[repeats > 1].sum()),
        )

    def _mutual_information_bits(self) -> float | None:
        from depthq.analysis import pairwise_mutual_information

        if not self.counts.has_pairs or len(self.counts.codebooks) < 2:
            return None
        return nats_to_bits(pairwise_mutual_information(self.counts, estimator="shuffle").mean_pairwise_nats)


def _whole(codes: Tensor, codebook_sizes: Sequence[int]) -> np.ndarray:
    """One value per row of codes (N, M), the same where all codes are."""
    bits_of = [max(size - 1, 1).bit_length() for size in codebook_sizes]
    if sum(bits_of) > 64:
        rows = np.ascontiguousarray(codes.numpy().astype(np.uint32))
        return rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    whole = np.zeros(len(codes), np.uint64)
    for column, width in zip(codes.numpy().T, bits_of, strict=True):
        whole = (whole << np.uint64(width)) | column.astype(np.uint64)
    return whole


@contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """(rank, number of processes), which torchrun tells by the environment; one process alone needs none."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield 0, 1
        return
    torch.distributed.init_process_group()
    try:
        yield torch.distributed.get_rank(), world_size
    finally:
        torch.distributed.destroy_process_group()


def _show(settings: Settings, figures: Figures) -> None:
    entropy = sum(figures.entropy_bits)
    shared = figures.mean_mutual_information_bits
    print(f"{settings.out}: {figures.vectors} vectors in {figures.bits_per_vector:.0f} bits each")
    print(f"error {figures.mse:.6g} per entry, {figures.mse_standardized:.4f} of the variance")
    print(
        f"codes: {entropy:.2f} bits of entropy, summed over codebooks; {min(figures.usage):.1%} of the least used "
        "codebook in use; "
        + ("mutual information not counted" if shared is None else f"{shared:.3f} bits shared by a pair, by shuffle")
    )
    print(
        f"{figures.colliding} vectors ({figures.colliding / figures.vectors:.2%}) have a code that is not theirs alone"
    )
