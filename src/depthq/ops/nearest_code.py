"""Nearest codeword of each latent vector, for all codebooks at once, without an N x K array in memory."""

import importlib.util
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from depthq.ops.nearest_code_cpu import nearest_code_cpu
from depthq.ops.nearest_code_reference import is_traced, nearest_code_reference


def _nearest_code_triton(
    latents: Tensor, codebooks: Tensor, codebook_sizes: Sequence[int], score_precision: str = "float32"
) -> Tensor:
    from depthq.ops.nearest_code_triton import nearest_code_triton  # Triton is optional and slow to import

    return nearest_code_triton(latents, codebooks, codebook_sizes, score_precision)


BACKENDS: dict[str, Callable[[Tensor, Tensor, Sequence[int], str], Tensor]] = {
    "reference": nearest_code_reference,
    "cpu": nearest_code_cpu,
    "triton": _nearest_code_triton,
}
"""All of them give the same codes; they differ in speed, and in where they run."""

SCORE_PRECISIONS = ("float32", "tf32x3", "tf32")
"""What scores may be computed in; codes are exact in each."""


def nearest_code(
    latents: Tensor,
    codebooks: Tensor,
    *,
    codebook_sizes: Sequence[int] | None = None,
    backend: str | None = None,
    score_precision: str = "float32",
) -> Tensor:
    """The code of the L2-nearest codeword, for each latent vector in its own codebook (Sec. 4, Eq. 3).

    The answer is that of float64 arithmetic: where float32 cannot tell two codewords apart, float64 decides, and
    where float64 cannot either, the lowest index wins. So codes do not depend on the backend, on the batch that
    a vector is part of, or on the order of sums. A vector with a NaN or an infinity gets code 0.

    What float64 decides is slow: next to nothing of random data, but every vector whose nearest codeword is there
    twice, and on CUDA, where one bound serves all codewords, also every vector beside a codeword that is 10^6 times
    as far out as the others.

    Shapes: M codebooks, N vectors for each, K codewords, D dimensions.

    Args:
        latents: float32 (M, N, D), with any strides; no copy of it is made.
        codebooks: float32 (M, K, D), on the same device.
        codebook_sizes: K_m of each codebook, 1..K; rows of codebook m at or beyond K_m are padding, and never chosen.
            None: all K.
        backend: "reference" (plain PyTorch, wherever there is float64), "cpu" or "triton" (CUDA); None takes what
            `which_backend` names. A graph under export is recorded with the reference, whatever is given; when it
            runs, it holds one float64 block of N x K x 8 entries, for one codebook after the other.
        score_precision: Lowest precision of the scores that codewords are shortlisted by; codes are the same for all.
            "float32"; or "tf32x3" or "tf32" for tensor cores, where the less precise leaves more to float64. "triton"
            computes with just that, "cpu" in float32 always (bfloat16 if `torch.set_float32_matmul_precision` allows
            it), "reference" in float64 always.

    Returns:
        int64 (M, N), entries of row m in [0, K_m). No gradient passes.

    Raises:
        ValueError: If shapes, dtypes, devices or sizes do not fit, the backend cannot run on this device, or
            `score_precision` is unknown.

    Example:
        >>> nearest_code(torch.tensor([[[0.9], [3.0]]]), torch.tensor([[[0.0], [1.0], [2.0]]]))
        tensor([[1, 2]])
    """
    sizes = _check(latents, codebooks, codebook_sizes)
    if score_precision not in SCORE_PRECISIONS:
        raise ValueError(f"score_precision must be one of {', '.join(SCORE_PRECISIONS)}; got {score_precision!r}")
    if is_traced():
        return nearest_code_reference(latents.detach(), codebooks.detach(), sizes)
    backend = which_backend(latents.device) if backend is None else _check_backend(backend, latents.device)
    search = _compiled_search if torch.compiler.is_compiling() else Search.apply
    return search(latents.detach(), codebooks.detach(), sizes, backend, score_precision)


def which_backend(device: torch.device | str) -> str:
    """The name of the backend that `nearest_code` picks for tensors on `device`."""
    device = torch.device(device)
    if device.type == "cpu":
        return "cpu"
    return "triton" if _triton_runs_on(device) else "reference"


def _search(
    latents: Tensor, codebooks: Tensor, codebook_sizes: list[int], backend: str, score_precision: str
) -> Tensor:
    return BACKENDS[backend](latents, codebooks, codebook_sizes, score_precision)


# To torch.compile the search is one opaque operation: its loops over blocks are not unrolled into the graph.
_compiled_search = torch.library.custom_op("depthq::nearest_code", _search, mutates_args=())


@_compiled_search.register_fake
def _(latents: Tensor, codebooks: Tensor, codebook_sizes: list[int], backend: str, score_precision: str) -> Tensor:
    return latents.new_empty(latents.shape[:2], dtype=torch.int64)


class Search(torch.autograd.Function):
    """`_search`, of which `torch.func` knows how it goes over a batch: N B latents are searched at once."""

    @staticmethod
    def forward(latents, codebooks, codebook_sizes, backend, score_precision) -> Tensor:
        return _search(latents, codebooks, codebook_sizes, backend, score_precision)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info, in_dims, latents, codebooks, *settings) -> tuple[Tensor, int]:
        of_latents, of_codebooks = in_dims[:2]
        if of_codebooks is None:
            many = latents.movedim(of_latents, 1)  # (M, B, N, D)
            return Search.apply(many.flatten(1, 2), codebooks, *settings).unflatten(1, many.shape[1:3]), 1
        each = range(info.batch_size)
        pairs = (
            [t if dim is None else t.select(dim, i) for t, dim in ((latents, of_latents), (codebooks, of_codebooks))]
            for i in each
        )
        return torch.stack([Search.apply(*pair, *settings) for pair in pairs]), 0


def _triton_runs_on(device: torch.device) -> bool:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own switch: slow, but runs on any device
    return (device.type == "cuda" or interpreted) and importlib.util.find_spec("triton") is not None


def _check_backend(backend: str, device: torch.device) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)} or None; got {backend!r}")
    if backend == "cpu" and device.type != "cpu":
        raise ValueError(f"backend 'cpu' must get tensors on the CPU; got {device}; use 'reference' or None")
    if backend == "triton" and not _triton_runs_on(device):
        raise ValueError(
            f"backend 'triton' must get tensors on a CUDA device and have Triton; got {device}; "
            "install depthq[cuda], move the tensors, or use backend=None"
        )
    return backend


def _check(latents: Tensor, codebooks: Tensor, codebook_sizes: Sequence[int] | None) -> list[int]:
    """The sizes of all codebooks, once everything fits together."""
    for name, tensor, shape in (("latents", latents, "(M, N, D)"), ("codebooks", codebooks, "(M, K, D)")):
        if tensor.dim() != 3:
            raise ValueError(f"{name} must have shape {shape}; got {tuple(tensor.shape)}")
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name} must be float32; got {tensor.dtype}; convert with .float()")
    if latents.shape[0] != codebooks.shape[0] or latents.shape[2] != codebooks.shape[2]:
        raise ValueError(
            "latents (M, N, D) must have the M and D of codebooks (M, K, D); "
            f"got {tuple(latents.shape)} and {tuple(codebooks.shape)}"
        )
    if latents.device != codebooks.device:
        raise ValueError(f"latents must be on the device of codebooks, {codebooks.device}; got {latents.device}")
    num_codebooks, codebook_size, codebook_dim = codebooks.shape
    if min(num_codebooks, codebook_size, codebook_dim) < 1:
        raise ValueError(f"codebooks must hold at least one codeword of one dimension; got {tuple(codebooks.shape)}")
    sizes = [codebook_size] * num_codebooks if codebook_sizes is None else list(codebook_sizes)
    if len(sizes) != num_codebooks or not all(1 <= size <= codebook_size for size in sizes):
        raise ValueError(f"codebook_sizes must be {num_codebooks} numbers in [1, {codebook_size}]; got {sizes}")
    return sizes
