"""Nearest codewords in float64: what "nearest" means, and the judge of what float32 cannot decide.

Distances are sums of squared differences, so their rounding error is relative to themselves: neither a far codeword
nor an offset that all vectors share blurs the near ones. Codewords whose distances agree up to that error are tied.
The lowest index wins a tie, so a copy of a codeword is never chosen.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK_NUMEL = 2**18
"""Most entries of one float64 block (2 MiB) of latents, codewords or distances."""

TRACED_COLUMNS = 8
"""Dimensions whose differences an exported graph holds at once."""


def nearest_code_reference(
    latents: Tensor, codebooks: Tensor, codebook_sizes: Sequence[int], score_precision: str = "float32"
) -> Tensor:
    """See `depthq.ops.nearest_code`; every `score_precision` is met, since all is float64."""
    per_codebook = zip(latents.unbind(), codebooks.unbind(), codebook_sizes, strict=True)
    return torch.stack([exact_codes(rows, codebook[:size]) for rows, codebook, size in per_codebook])


def exact_codes(rows: Tensor, codebook: Tensor) -> Tensor:
    """The codes int64 (N,) of the codewords (K, D) nearest to `rows` (N, D); 0 for rows that are not finite."""
    if is_traced():  # the number of rows is not known yet: one block
        return _exact_block(rows, codebook)
    widest = max(codebook.shape[1], min(codebook.shape[0], codewords_per_tile(codebook.shape[1], BLOCK_NUMEL)))
    blocks = rows.split(max(1, BLOCK_NUMEL // widest))
    return torch.cat([_exact_block(block, codebook) for block in blocks])


def _exact_block(rows: Tensor, codebook: Tensor) -> Tensor:
    rows = rows.double()
    dim = codebook.shape[1]
    tile = codewords_per_tile(dim, BLOCK_NUMEL)
    tolerance = (dim + 8) * torch.finfo(torch.float64).eps  # of a sum of D squares, relative to it
    best = torch.full_like(rows[:, 0], torch.inf)
    codes = torch.zeros_like(best, dtype=torch.int64)
    for start in range(0, codebook.shape[0], tile):
        squares = _squared_distances(rows, codebook[start : start + tile].double())  # (rows, tile)
        lowest = squares.amin(1)
        tied = squares <= (lowest * (1 + tolerance))[:, None]
        first = tied.int().argmax(1)  # argmax gives the first of equal entries
        codes = torch.where(lowest < best * (1 - tolerance), first + start, codes)
        best = torch.minimum(best, lowest)
    return codes


def _squared_distances(rows: Tensor, codewords: Tensor) -> Tensor:
    """(N, K) from the differences, never from a product, which would cancel."""
    if not is_traced():
        return torch.cdist(rows, codewords, compute_mode="donot_use_mm_for_euclid_dist").square_()
    squares = rows.new_zeros(())  # ONNX has no cdist
    for x, c in zip(rows.split(TRACED_COLUMNS, 1), codewords.split(TRACED_COLUMNS, 1), strict=True):
        squares = squares + (x[:, None] - c).square().sum(2)
    return squares


def codewords_per_tile(codebook_dim: int, numel: int) -> int:
    """How many codewords to take at once, so that a tile of them has at most `numel` entries."""
    return max(1, min(1024, numel // codebook_dim))


def is_traced() -> bool:
    """Whether a graph for export is being recorded, to which only plain operations on whole tensors may go."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
