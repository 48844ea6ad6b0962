"""How long a training pass of a quantizer takes: forward, codebook upkeep and backward.

    python benchmarks/training_pass.py            # the two reference shapes
    python benchmarks/training_pass.py --compiled # also a peer under torch.compile; on CUDA it is always there
    python benchmarks/training_pass.py --smoke    # seconds: checks that everything runs

The limit is one `torch.bmm` of all the scores, which a pass cannot do without. The peers are vector-quantize-pytorch's
ways to give each slice a codebook of its own, with EMA and the same decay. Ours and the peers are asserted to choose
the same codewords before any is timed. Where a CUDA device is, all runs there, and peak memory is told as well;
nothing has been measured on one yet.
"""

import argparse
import json
from collections.abc import Callable
from importlib.metadata import version

import torch
from measure import environment, peak_extra_cuda_bytes, print_rows, race
from torch import Tensor, nn
from vector_quantize_pytorch import GroupedResidualVQ, VectorQuantize

from depthq import DepthwiseQuantizer

SHAPES = [(8192, 10, 512, 64), (65536, 4, 1024, 32)]
"""(N, M, K, D)."""
DECAY = 0.99
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; the medians count")
    parser.add_argument("--compiled", action="store_true", default=DEVICE == "cuda", help="a peer compiled, too")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, two rounds")
    args = parser.parse_args()
    torch.manual_seed(0)
    for shape in [(300, 2, 16, 8)] if args.smoke else SHAPES:
        compare(shape, rounds=2 if args.smoke else args.rounds, compiled=args.compiled)


def compare(shape: tuple[int, int, int, int], *, rounds: int, compiled: bool) -> None:
    num_rows, num_codebooks, size, dim = shape
    rows = torch.randn(1, num_rows, num_codebooks * dim, device=DEVICE)
    codebooks = torch.randn(num_codebooks, size, dim, device=DEVICE)
    contestants = make_contestants(rows, codebooks, compiled=compiled)
    timings = race(contestants, rounds=rounds)
    facts = {
        **dict(zip("NMKD", shape, strict=True)),
        "dtype": "float32",
        "vector_quantize_pytorch": version("vector-quantize-pytorch"),
        **environment(DEVICE),
    }
    print_rows("training pass, N={} M={} K={} D={}".format(*shape), timings, facts)
    if DEVICE == "cuda":
        for name, run in contestants.items():
            peak_mib = round(peak_extra_cuda_bytes(run) / 2**20, 1)
            print(json.dumps({"name": f"{name}, memory beyond inputs", "MiB": peak_mib, **facts}))


def make_contestants(rows: Tensor, codebooks: Tensor, *, compiled: bool) -> dict[str, Callable[[], object]]:
    """The limit first, then ours, then the peers, all started from the same codebooks."""
    num_codebooks, size, dim = codebooks.shape
    sizes = (num_codebooks * dim, num_codebooks, size)
    latents = rows[0].unflatten(1, (num_codebooks, dim)).transpose(0, 1)
    ours = started(DepthwiseQuantizer(*sizes, axis=-1, decay=DECAY), codebooks)
    unchecked = started(DepthwiseQuantizer(*sizes, axis=-1, decay=DECAY, check_finite=False), codebooks)
    heads = VectorQuantize(
        num_codebooks * dim, size, codebook_dim=dim, heads=num_codebooks, separate_codebook_per_head=True, decay=DECAY
    ).to(DEVICE)
    heads._codebook.embed.data.copy_(codebooks)
    groups = GroupedResidualVQ(
        dim=num_codebooks * dim, groups=num_codebooks, num_quantizers=1, codebook_size=size, decay=DECAY
    ).to(DEVICE)
    for group, codebook in zip(groups.rvqs, codebooks, strict=True):
        group.layers[0]._codebook.embed.data.copy_(codebook[None])
    assert_same(ours, heads, groups, rows)
    contestants: dict[str, Callable[[], object]] = {
        "torch.bmm of the scores (the limit)": lambda: torch.bmm(latents, codebooks.transpose(1, 2)),
        "depthq DepthwiseQuantizer": training_pass(ours, rows, lambda out: (out.quantized, out.loss)),
        "depthq, check_finite=False": training_pass(unchecked, rows, lambda out: (out.quantized, out.loss)),
        "vector-quantize-pytorch, separate heads": training_pass(heads, rows, lambda out: (out[0], out[2])),
        "vector-quantize-pytorch, GroupedResidualVQ": training_pass(groups, rows, lambda out: (out[0], out[2].sum())),
    }
    if compiled:
        name = "vector-quantize-pytorch, heads, compiled"
        contestants[name] = training_pass(torch.compile(heads), rows, lambda out: (out[0], out[2]))
    return contestants


def started(quantizer: DepthwiseQuantizer, codebooks: Tensor) -> DepthwiseQuantizer:
    """With the given codebooks, each codeword of the same count."""
    quantizer.to(DEVICE)
    quantizer.state.restart(quantizer.state.is_code, codebooks, num_rows=codebooks.shape[1])
    return quantizer


def assert_same(ours: nn.Module, heads: nn.Module, groups: nn.Module, rows: Tensor) -> None:
    """At most one vector in a thousand, a near tie to float32, may have another codeword than ours."""
    quantized = ours.eval()(rows).quantized
    for peer in (heads, groups):
        assert (peer.eval()(rows)[0] == quantized).float().mean() > 0.999
        peer.train()
    ours.train()


def training_pass(quantizer: nn.Module, rows: Tensor, read: Callable) -> Callable[[], None]:
    """Forward and backward, from the quantized tensor and from the loss; `read` finds both in the output."""
    leaf = rows.clone().requires_grad_()
    upstream = torch.randn_like(rows)

    def run() -> None:
        leaf.grad = None
        torch.autograd.backward(read(quantizer(leaf)), [upstream, None])

    return run


if __name__ == "__main__":
    main()
