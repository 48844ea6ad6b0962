"""Nearest codewords on a CUDA device: scores live in registers, and no N x K array is ever in memory.

Two kernels. The first keeps, per row, the best score, the runner-up and the index of the best while it walks over
tiles of codewords, and marks the rows where rounding could have swapped the two. The second settles those in
float64. Nothing waits for the host in between.

Both kernels are tested in Triton's interpreter (TRITON_INTERPRET=1) and, where there is one, on a GPU. Their speed
has not been measured on a GPU yet.
"""

from collections.abc import Sequence

# pyright: reportCallIssue=false
# (launching a kernel, kernel[grid](...), is no call that a type checker knows)
import torch
import triton
import triton.language as tl
from torch import Tensor

UNIT_ROUNDOFF = {"float32": 2.0**-24, "tf32x3": 2.0**-20, "tf32": 2.0**-10}
"""Relative error of one product, per `score_precision`. Codes are exact in each: the lower, the more to settle."""

ROWS_PER_PROGRAM = 16
"""Rows that one program of the second kernel looks at; few of them are marked."""


def nearest_code_triton(
    latents: Tensor, codebooks: Tensor, codebook_sizes: Sequence[int], score_precision: str = "float32"
) -> Tensor:
    """See `depthq.ops.nearest_code`."""
    num_codebooks, num_rows, dim = latents.shape
    codes = torch.empty(num_codebooks, num_rows, dtype=torch.int64, device=latents.device)
    if num_rows == 0:
        return codes
    doubtful = torch.empty(num_codebooks, num_rows, dtype=torch.int8, device=latents.device)
    sizes = torch.tensor(codebook_sizes, device=latents.device)
    codewords, offsets, longest, largest_offset = _centre(codebooks, sizes)
    precision = "ieee" if score_precision == "float32" else score_precision  # as Triton calls it
    block_dim = min(64, max(16, triton.next_power_of_2(dim)))
    with torch.cuda.device_of(latents):  # kernels start on the current device, wherever their tensors are
        _search_kernel[(triton.cdiv(num_rows, 64), num_codebooks)](
            latents, *latents.stride(), codewords, offsets, longest, largest_offset, codes, doubtful,
            num_rows, codebooks.shape[1], dim, 2 * (dim + 9) * UNIT_ROUNDOFF[score_precision],
            BLOCK_ROWS=64, BLOCK_CODES=64, BLOCK_DIM=block_dim, INPUT_PRECISION=precision,
        )  # fmt: skip
        _settle_kernel[(triton.cdiv(num_rows, ROWS_PER_PROGRAM), num_codebooks)](
            latents, *latents.stride(), codebooks, *codebooks.stride(), sizes, codes, doubtful,
            num_rows, dim, ROWS=ROWS_PER_PROGRAM, BLOCK_CODES=32, BLOCK_DIM=block_dim,
        )  # fmt: skip
    return codes


def _centre(codebooks: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codewords less their mean (M, K, D), offsets (M, K), and the longest and largest of them (M,); see the CPU's."""
    padding = torch.arange(codebooks.shape[1], device=sizes.device) >= sizes[:, None]  # (M, K)
    wide = codebooks.double().masked_fill(padding[..., None], 0)
    centre = wide.sum(1, keepdim=True) / sizes[:, None, None]
    centred = (wide - centre).masked_fill(padding[..., None], 0)
    offsets = centred.square().sum(2) / 2 + (centred * centre).sum(2)
    longest = torch.linalg.vector_norm(centred, dim=2).amax(1)
    largest_offset = offsets.abs().amax(1)
    offsets = offsets.masked_fill(padding, torch.inf)  # a score of -inf is never the best
    return centred.float(), offsets.float(), longest.float(), largest_offset.float()


@triton.jit
def _search_kernel(
    latents, stride_m, stride_n, stride_d, codewords, offsets, longest, largest_offset, codes, doubtful,
    num_rows, num_codes, dim, relative_error,
    BLOCK_ROWS: tl.constexpr, BLOCK_CODES: tl.constexpr, BLOCK_DIM: tl.constexpr, INPUT_PRECISION: tl.constexpr,
):  # fmt: skip
    """Codes of a block of rows of one codebook, and which of them float32 cannot be sure of."""
    m = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_CODES)
    dims = tl.arange(0, BLOCK_DIM)
    x_pointers = latents + m * stride_m + rows[:, None] * stride_n + dims[None, :] * stride_d
    c_pointers = codewords + m * num_codes * dim + dims[:, None]

    square = tl.zeros([BLOCK_ROWS], tl.float32)
    for d in range(0, dim, BLOCK_DIM):
        x = tl.load(x_pointers + d * stride_d, (rows[:, None] < num_rows) & (dims[None, :] < dim - d), other=0.0)
        square += tl.sum(x * x, 1)
    readable = (rows < num_rows) & (square < float("inf"))  # NaN and infinity are left to the second kernel

    best = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    runner_up = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    code = tl.zeros([BLOCK_ROWS], tl.int32)
    for start in range(0, num_codes, BLOCK_CODES):
        k = start + columns
        scores = tl.zeros([BLOCK_ROWS, BLOCK_CODES], tl.float32)
        for d in range(0, dim, BLOCK_DIM):
            x = tl.load(x_pointers + d * stride_d, readable[:, None] & (dims[None, :] < dim - d), other=0.0)
            c = tl.load(
                c_pointers + k[None, :] * dim + d, (k[None, :] < num_codes) & (dims[:, None] < dim - d), other=0.0
            )
            scores = tl.dot(x, c, scores, input_precision=INPUT_PRECISION)
        scores -= tl.load(offsets + m * num_codes + k, k < num_codes, other=float("inf"))[None, :]

        tile_best, tile_code = tl.max(scores, 1, return_indices=True)  # the lowest index of equal ones
        others = tl.where(columns[None, :] == tile_code[:, None], float("-inf"), scores)
        runner_up = tl.maximum(tl.minimum(best, tile_best), tl.maximum(runner_up, tl.max(others, 1)))
        code = tl.where(tile_best > best, tile_code + start, code)
        best = tl.maximum(best, tile_best)

    scale = tl.sqrt(square) * tl.load(longest + m) + tl.load(largest_offset + m)
    smallest = 1.1754944e-38 * 2 * (dim + 9)  # products below it round to zero
    sure = best - runner_up > relative_error * scale + smallest  # false where anything is NaN
    tl.store(codes + m * num_rows + rows, code.to(tl.int64), rows < num_rows)
    tl.store(doubtful + m * num_rows + rows, tl.where(sure, 0, 1).to(tl.int8), rows < num_rows)


@triton.jit
def _settle_kernel(
    latents, stride_m, stride_n, stride_d, codebooks, stride_cm, stride_ck, stride_cd, sizes, codes, doubtful,
    num_rows, dim, ROWS: tl.constexpr, BLOCK_CODES: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Codes of the doubtful rows, from float64 distances; what float64 cannot tell apart goes to the lowest index."""
    m = tl.program_id(1).to(tl.int64)
    first_row = tl.program_id(0).to(tl.int64) * ROWS
    dims = tl.arange(0, BLOCK_DIM)
    size = tl.load(sizes + m).to(tl.int32)
    tolerance = (dim + 8) * 2.220446049250313e-16
    for row in range(first_row, tl.minimum(first_row + ROWS, num_rows)):
        if tl.load(doubtful + m * num_rows + row) != 0:
            best = tl.full([], float("inf"), tl.float64)
            code = tl.zeros([], tl.int32)
            for start in range(0, size, BLOCK_CODES):
                k = start + tl.arange(0, BLOCK_CODES)
                distances = tl.zeros([BLOCK_CODES], tl.float64)
                for d in range(0, dim, BLOCK_DIM):
                    x = tl.load(
                        latents + m * stride_m + row * stride_n + (dims + d) * stride_d, dims < dim - d, other=0.0
                    )
                    c_pointers = codebooks + m * stride_cm + k[:, None] * stride_ck + (dims + d)[None, :] * stride_cd
                    c = tl.load(c_pointers, (k[:, None] < size) & (dims[None, :] < dim - d), other=0.0)
                    difference = x.to(tl.float64)[None, :] - c.to(tl.float64)
                    distances += tl.sum(difference * difference, 1)
                distances = tl.where((k < size) & (distances == distances), distances, float("inf"))
                lowest = tl.min(distances, 0)
                first = tl.min(tl.where(distances <= lowest * (1 + tolerance), k, size), 0)
                code = tl.where(lowest < best * (1 - tolerance), first, code)
                best = tl.minimum(best, lowest)
            tl.store(codes + m * num_rows + row, code.to(tl.int64))
