"""Segment sums: how many vectors chose each codeword, and what they add up to."""

import torch
from torch import Tensor


def segment_sums(latents: Tensor, codes: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Count and add up the latents of each code: the statistics of the EMA update (App. A.4).

    Takes time N M D and memory N M, where a product with one-hot codes takes N M K D and N M K.

    Shapes: M codebooks, N vectors for each, K codes, D dimensions.

    Args:
        latents: float32 (M, N, D), with any strides.
        codes: int64 (M, N), in [0, K), which is not checked.
        num_codes: K.

    Returns:
        counts: float32 (M, K).
        sums: float32 (M, K, D), zero for codes that do not occur.

    Raises:
        ValueError: If shapes or dtypes do not fit.

    Example:
        >>> latents = torch.tensor([[[1.0], [10.0], [100.0]]])
        >>> counts, sums = segment_sums(latents, torch.tensor([[2, 0, 2]]), 3)
        >>> counts.tolist(), sums.flatten().tolist()
        ([[1.0, 0.0, 2.0]], [10.0, 0.0, 101.0])
    """
    if latents.dim() != 3 or latents.dtype != torch.float32:
        raise ValueError(f"latents must be float32 (M, N, D); got {latents.dtype} {tuple(latents.shape)}")
    if codes.dtype != torch.int64 or codes.shape != latents.shape[:2]:
        raise ValueError(
            f"codes must be int64 with the shape {tuple(latents.shape[:2])} of the latents; "
            f"got {codes.dtype} {tuple(codes.shape)}"
        )
    num_codebooks, num_rows, dim = latents.shape
    # One segment per codebook and code. Rows go position by position, as they lie in memory when the latents of a
    # position are neighbours: nothing is copied then, and adding neighbours is five times as fast as striding.
    rows = latents.detach().transpose(0, 1).reshape(num_rows * num_codebooks, dim)
    first_segments = torch.arange(num_codebooks, device=codes.device) * num_codes
    segments = (codes.T + first_segments).flatten()  # (N * M,)
    counts = rows.new_zeros(num_codebooks * num_codes).index_add_(0, segments, rows.new_ones(()).expand(len(rows)))
    sums = rows.new_zeros(num_codebooks * num_codes, dim).index_add_(0, segments, rows)
    return counts.view(num_codebooks, num_codes), sums.view(num_codebooks, num_codes, dim)
