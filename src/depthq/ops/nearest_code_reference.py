"""Nearest codewords in float64: what "nearest" means, and the judge of what float32 cannot decide.

Two codewords count as tied when their distances to a vector differ by less than the rounding error of float64. The
lowest index wins a tie, so a copy of a codeword is never chosen, whatever order a matrix product sums in.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK_NUMEL = 2**18
"""Most entries of one float64 block (2 MiB) of latents, codewords or scores."""


def nearest_code_reference(latents: Tensor, codebooks: Tensor, codebook_sizes: Sequence[int]) -> Tensor:
    """See `depthq.ops.nearest_code`."""
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
    # Half the squared distance, less what does not depend on the codeword: |c|^2 / 2 - x.c. Both sides are centred
    # first, so that an offset that all vectors share does not eat the digits that tell the codewords apart.
    dtype = widest_float(rows.device)
    tile = codewords_per_tile(codebook.shape[1], BLOCK_NUMEL)
    centre = codebook[:tile].mean(0, dtype=dtype)  # any point near them serves
    rows = rows.to(dtype) - centre
    lengths = torch.linalg.vector_norm(rows, dim=1)
    best = torch.full_like(lengths, torch.inf)
    codes = torch.zeros_like(lengths, dtype=torch.int64)
    for start in range(0, codebook.shape[0], tile):
        codewords = codebook[start : start + tile].to(dtype) - centre
        half_squares = codewords.square().sum(1) / 2
        scores = torch.addmm(half_squares, rows, codewords.T, alpha=-1)  # (rows, tile)
        lowest = scores.amin(1)
        tolerance = rounding_bound(lengths, codewords, half_squares, unit_roundoff=torch.finfo(dtype).eps / 2)
        tied = scores <= (lowest + tolerance)[:, None]
        first = tied.int().argmax(1)  # argmax gives the first of equal entries
        codes = torch.where(lowest < best - tolerance, first + start, codes)
        best = torch.minimum(best, lowest)
    return codes


def rounding_bound(lengths: Tensor, codewords: Tensor, offsets: Tensor, *, unit_roundoff: float) -> Tensor:
    """Most by which rounding can shift two scores x.c - offset against each other, in whatever order they are summed.

    A sum of D products has an error of at most D u sum |x_i c_i| <= D u |x||c| (Higham, Accuracy and Stability of
    Numerical Algorithms, Sec. 3.1); 8 more u cover the roundings of codewords, offsets and of this bound itself.

    Args:
        lengths: |x| of each row, (N,).
        codewords: (K, D).
        offsets: (K,).
        unit_roundoff: u, the relative error of one operation.

    Returns:
        (N,), same dtype as `lengths`.
    """
    longest = torch.linalg.vector_norm(codewords, dim=1).amax(0)
    scale = lengths * longest + offsets.abs().amax(0)
    smallest = torch.finfo(lengths.dtype).tiny  # below it, products round to zero
    return 2 * (codewords.shape[1] + 8) * (unit_roundoff * scale + smallest)


def codewords_per_tile(codebook_dim: int, numel: int) -> int:
    """How many codewords to take at once, so that a tile of them has at most `numel` entries."""
    return max(1, min(1024, numel // codebook_dim))


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def is_traced() -> bool:
    """Whether a graph for export is being recorded, to which only plain operations on whole tensors may go."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
