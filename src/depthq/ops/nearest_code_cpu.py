"""Nearest codewords on a CPU: blocks that stay in cache, vectorised arg-max, and proof that float32 was enough.

Per block of rows, one float32 matrix product gives the scores with codewords along the slow axis. A maximum over
that axis takes whole vector registers of rows at a time, where `argmin` over the last axis walks entry by entry.
Where the runner-up is so close that rounding could have swapped the two, `exact_codes` decides in float64.
"""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from depthq.ops.nearest_code_reference import codewords_per_tile, exact_codes

BLOCK_NUMEL = 2**19
"""Most float32 entries per thread (2 MiB) of a block of scores, rows or codewords."""

MAX_SPAN = 2**16
"""Rows that share one preparation of the codewords; their running maxima are all that is kept of them."""

SMALL = 2**21
"""Multiplications that take less time than to start threads."""


def nearest_code_cpu(
    latents: Tensor, codebooks: Tensor, codebook_sizes: Sequence[int], score_precision: str = "float32"
) -> Tensor:
    """See `depthq.ops.nearest_code`; scores are float32 for every `score_precision`."""
    num_codebooks, num_rows, _ = latents.shape
    codes = torch.empty(num_codebooks, num_rows, dtype=torch.int64, device=latents.device)
    span = min(MAX_SPAN, -(-num_rows // torch.get_num_threads())) or 1
    tasks = [(m, slice(start, start + span)) for m in range(num_codebooks) for start in range(0, num_rows, span)]

    def search(task: tuple[int, slice]) -> Tensor:
        m, rows = task
        return _search(latents[m, rows], codebooks[m, : codebook_sizes[m]])

    alone = torch.get_num_threads() == 1 or latents.numel() * codebooks.shape[1] < SMALL
    with contextlib.nullcontext(map) if alone else _parallel_map() as run:
        for task, found in zip(tasks, run(search, tasks), strict=True):
            codes[task] = found
    return codes


@contextlib.contextmanager
def _parallel_map():
    """A `map` over as many threads as PyTorch may use, each of which computes alone."""
    # PyTorch's own threads meet after every operation, many times per block: on a busy machine the slower one makes
    # all wait, which took 10 times as long as here, where they meet once. `set_num_threads` acts on the calling
    # thread and on threads to come; hence the reset at the end.
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def _search(rows: Tensor, codebook: Tensor) -> Tensor:
    """Codes (N,) of `rows` (N, D) in one codebook (K, D)."""
    codebook_size, dim = codebook.shape
    tile = codewords_per_tile(dim, BLOCK_NUMEL)
    centre = codebook[:64].median(0).values.double()  # a point near most of them, which one far away does not move
    best = rows.new_full((len(rows),), -torch.inf)
    runner_up, tolerance = best.clone(), torch.zeros_like(best)
    codes = torch.zeros_like(best, dtype=torch.int64)
    for start in range(0, codebook_size, tile):
        found = _best_two(rows, codebook[start : start + tile], centre)
        better = found[0] > best
        codes = torch.where(better, found[2] + start, codes)
        tolerance = torch.where(better, found[3], tolerance)
        runner_up = torch.maximum(torch.minimum(best, found[0]), torch.maximum(runner_up, found[1]))
        best = torch.maximum(best, found[0])
    doubtful = (best - runner_up > tolerance).logical_not_().nonzero().squeeze(1)  # NaN is doubtful, too
    if len(doubtful):
        codes[doubtful] = exact_codes(rows[doubtful], codebook)
    return codes


def _best_two(rows: Tensor, codewords: Tensor, centre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per row: most that the highest score may be, the same of the runner-up, index and error of the highest."""
    # Score: x.c' - (|c'|^2 / 2 + m.c') with c' = c - m. It differs from -|x - c|^2 / 2 by a constant of the row.
    # Centring the codewords alone spares a pass over the rows and still removes most of the cancellation.
    #
    # A sum of D products has a rounding error of at most D u sum |x_i c_i| <= D u |x||c| (Higham, Accuracy and
    # Stability of Numerical Algorithms, Sec. 3.1), 8 more u cover the roundings of codewords, offsets and the bound.
    # So each codeword has an error of its own, linear in |x|: it rides along as two more columns of the product.
    dim = codewords.shape[1]
    centred = codewords.double() - centre
    offsets = centred.square().sum(1) / 2 + centred @ centre
    unit = (dim + 10) * _unit_roundoff()
    slopes = unit * torch.linalg.vector_norm(centred, dim=1)
    errors = unit * offsets.abs() + (dim + 10) * torch.finfo(torch.float32).tiny  # below it, products round to zero
    weights = torch.cat([centred, (errors - offsets)[:, None], slopes[:, None]], 1).float()
    slopes, errors = slopes.float(), errors.float()
    block = max(1, min(4096, BLOCK_NUMEL // max(len(codewords), dim + 2)))
    padded = rows.new_ones(min(block, len(rows)), dim + 2)
    # Made once: small results kept between large blocks would keep the allocator from reusing the blocks' memory.
    best, runner_up, tolerance = rows.new_empty(3, len(rows))
    codes = torch.empty_like(best, dtype=torch.int64)
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        part_padded = padded[: len(rows) - start]
        part_padded[:, :dim].copy_(rows[part])
        part_padded[:, -1] = torch.linalg.vector_norm(part_padded[:, :dim], dim=1)
        best[part], runner_up[part], codes[part] = _top_two(_product(weights, part_padded))
        tolerance[part] = 2 * (part_padded[:, -1] * slopes[codes[part]] + errors[codes[part]])
    return best, runner_up, codes, tolerance


def _top_two(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Highest score, runner-up and lowest index of the highest, down each column of `scores` (K, N)."""
    # Max-pooling of an image of height K has a vectorised kernel where the channels lie last: rows play the channels.
    num_codes, num_rows = scores.shape
    image = scores.view(1, num_codes, 1, num_rows).permute(0, 3, 1, 2)
    best, codes = (out.view(num_rows) for out in F.max_pool2d(image, (num_codes, 1), return_indices=True))
    scores.scatter_(0, codes[None], -torch.inf)
    return best, scores.amax(0), codes


def _product(weights: Tensor, rows: Tensor) -> Tensor:
    """`weights` (K, D) times `rows` (N, D) transposed, (K, N). Both must be contiguous."""
    # oneDNN has AVX-512 kernels for every vendor's CPUs, MKL (behind `mm`) for Intel's alone: about twice the speed.
    if torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(weights, rows, None, "none", [], "")
    return torch.mm(weights, rows.T)


def _unit_roundoff() -> float:
    """Relative error of one operation in a float32 matrix product, under the precision the user has allowed."""
    try:
        exact = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set per backend
        exact = False
    return 2.0**-24 if exact else 2.0**-8  # inputs may be rounded to bfloat16
