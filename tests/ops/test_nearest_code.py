import subprocess
import sys

import faiss
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from depthq.ops import nearest_code, nearest_code_cpu, which_backend
from depthq.ops.nearest_code_reference import exact_codes

BACKENDS_HERE = ["reference", "cpu"]


def distances(latents, codebook):
    """Distances (N, K) in float64 from differences, without a product that could cancel."""
    return torch.cdist(latents.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_hand_checked_codes(backend):
    codebook = torch.tensor([[0.0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 5, 0, 0], [-1, 0, 0, 0, 1]])
    latents = torch.tensor(
        [[0.1, 0, 0, 0, 0.2], [0.9, 1, 1, 1, 0.4], [0, 0, 3, 0, 0], [-0.6, 0, 0, 0, 0.6], [9, 9, 9, 9, 9]]
    )
    assert nearest_code(latents[None], codebook[None], backend=backend).tolist() == [[0, 1, 2, 3, 1]]


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_equidistant_codewords_give_the_lowest_index(backend):
    codebook = torch.tensor([[[3.0], [1.0], [-1.0], [1.0], [-3.0]]])
    assert nearest_code(torch.tensor([[[0.0], [2.0], [-2.0]]]), codebook, backend=backend).tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize("far", [1e6, 1e8, 1e10, 1e15])
def test_a_far_codeword_does_not_blur_the_near_ones(backend, far):
    codebook = torch.tensor([[[0.0], [1.0], [far]]])
    assert nearest_code(torch.tensor([[[0.9], [0.1], [far]]]), codebook, backend=backend).tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize("size", [2, 17, 130, 1025, 2500])
def test_a_copy_of_a_codeword_is_never_chosen(backend, size):
    originals = -(-size // 2)
    codebook = randn(1, originals, 19).repeat(1, 2, 1)[:, :size]
    codes = nearest_code(randn(1, 999, 19, seed=1), codebook, backend=backend)
    assert codes.max() < originals


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_padding_is_never_chosen_whatever_it_holds(backend):
    codebooks = randn(3, 6, 4)
    codebooks[1, 2:] = torch.nan
    codebooks[2, 1:] = 0.0
    codes = nearest_code(randn(3, 200, 4, seed=1), codebooks, codebook_sizes=[6, 2, 1], backend=backend)
    assert codes.amax(1).tolist() == [5, 1, 0]


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize(("rows", "size", "dim"), [(0, 5, 3), (1, 1, 1), (7, 1, 2), (33, 3000, 5), (3, 2, 1000)])
def test_any_shape(backend, rows, size, dim):
    latents, codebooks = randn(2, rows, dim), randn(2, size, dim, seed=1)
    codes = nearest_code(latents, codebooks, backend=backend)
    assert codes.dtype == torch.int64
    assert codes.shape == (2, rows)
    for m in range(2):
        assert torch.equal(codes[m], distances(latents[m], codebooks[m]).argmin(1))


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_strides_do_not_matter(backend):
    codebooks = randn(3, 40, 8).transpose(0, 1).contiguous().transpose(0, 1)
    neighbours = randn(500, 3, 8, seed=1).transpose(0, 1)
    shared = randn(500, 8, seed=2).expand(3, 500, 8)
    channels_first = randn(3, 8, 500, seed=3).transpose(1, 2)
    for latents in (neighbours, shared, channels_first):
        expected = nearest_code(latents.contiguous(), codebooks.contiguous(), backend=backend)
        assert torch.equal(nearest_code(latents, codebooks, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_vectors_that_are_not_finite_get_code_zero_and_spoil_no_other(backend):
    latents, codebooks = randn(1, 50, 4), randn(1, 9, 4, seed=1)
    expected = nearest_code(latents, codebooks, backend=backend)
    latents[0, 3, 1], latents[0, 7, 0], latents[0, 8] = torch.nan, torch.inf, -torch.inf
    expected[0, [3, 7, 8]] = 0
    assert torch.equal(nearest_code(latents, codebooks, backend=backend), expected)


def million_vectors():
    """Families of up to 125,000 latents (N, 16), each with a codebook (64, 16)."""
    codebook, latents = randn(64, 16), randn(125_000, 16, seed=1)
    picks = torch.randint(64, (2, 125_000), generator=torch.Generator().manual_seed(2))
    clustered = codebook[picks[0]] + 1e-3 * latents
    midpoints = (codebook[picks[0]] + codebook[picks[1]]) / 2
    tight = torch.cat([codebook[:32], codebook[:32] * (1 + 1e-6)])
    yield "random", latents, codebook
    yield "clustered", clustered, codebook
    yield "duplicated", latents, codebook[:16].repeat(4, 1)
    yield "nearly tied codewords", latents, tight
    yield "near the border of two", midpoints + 1e-6 * latents, codebook
    yield "far from the origin", clustered + 1000.0, codebook + 1000.0
    yield "two far clusters", latents + 1e4 * (picks[0] % 2)[:, None], codebook + 1e4 * (torch.arange(64) % 2)[:, None]
    for far in (1e6, 1e8, 1e10):
        yield f"one codeword at {far:g}", latents[:25_000], torch.cat([codebook[:-1], torch.full((1, 16), far)])
    yield "tiny", 1e-21 * latents, 1e-21 * codebook


@pytest.mark.parametrize(("latents", "codebook"), [pytest.param(*rest, id=name) for name, *rest in million_vectors()])
def test_a_million_vectors_get_the_nearest_codeword(latents, codebook):
    codes = nearest_code(latents[None], codebook[None], backend="cpu")[0]
    assert torch.equal(codes, nearest_code(latents[None], codebook[None], backend="reference")[0])
    squares = distances(latents, codebook).square()
    lowest = squares.amin(1)
    chosen = squares.gather(1, codes[:, None])[:, 0]
    # A float32 sum of D squared differences errs by up to (D + 2) 2^-24 of itself; ours stays far within it.
    float32_rounding = (16 + 2) * 2.0**-24 * lowest
    assert (chosen - lowest <= 1e-3 * float32_rounding).all()


def test_agrees_with_faiss_wherever_float32_can_tell():
    latents, codebook = randn(20_000, 32), randn(256, 32, seed=1)
    theirs = torch.from_numpy(faiss.knn(latents.numpy(), codebook.numpy(), 1)[1][:, 0])
    ours = nearest_code(latents[None], codebook[None])[0]
    differ = ours != theirs
    assert differ.float().mean() < 1e-3
    squares = distances(latents[differ], codebook).square()
    gap = squares.gather(1, theirs[differ, None]) - squares.gather(1, ours[differ, None])
    assert (gap >= 0).all()  # where they differ, ours is nearer


def test_codes_do_not_depend_on_the_batch():
    latents, codebooks = randn(2, 5000, 24), randn(2, 300, 24, seed=1)
    latents[:, ::7] = codebooks[:, :1] + codebooks[:, 1:2]  # some need float64
    whole = nearest_code(latents, codebooks)
    parts = [nearest_code(part, codebooks) for part in latents.split(613, dim=1)]
    assert torch.equal(whole, torch.cat(parts, 1))


@pytest.mark.parametrize("change", ["no oneDNN", "medium precision", "threads", "one block per row", "autocast"])
def test_codes_do_not_depend_on_settings(monkeypatch, set_num_threads, change):
    codebooks = 10.0 + randn(2, 300, 24, seed=1)
    latents = (codebooks[:, :, None] + codebooks[:, None, :10]).flatten(1, 2) / 2  # on borders: float32 fails
    expected = nearest_code(latents, codebooks, backend="reference")
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        if change == "no oneDNN":
            monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        elif change == "medium precision":
            torch.set_float32_matmul_precision("medium")
        elif change == "threads":
            set_num_threads(3)
            monkeypatch.setattr(nearest_code_cpu, "SMALL", 0)
        elif change == "one block per row":
            monkeypatch.setattr(nearest_code_cpu, "BLOCK_NUMEL", 1)
            latents, expected = latents[:, :50], expected[:, :50]
        with torch.autocast("cpu", enabled=change == "autocast"):
            assert torch.equal(nearest_code(latents, codebooks), expected)
        assert torch.get_num_threads() == (3 if change == "threads" else threads)
    finally:
        torch.set_float32_matmul_precision(before)


def test_threads_work_in_inference_mode(monkeypatch, set_num_threads):
    monkeypatch.setattr(nearest_code_cpu, "SMALL", 0)
    set_num_threads(2)
    latents, codebooks = randn(2, 100, 4), randn(2, 9, 4, seed=1)
    with torch.inference_mode():
        codes = nearest_code(latents * 1, codebooks * 1)
    assert torch.equal(codes, nearest_code(latents, codebooks, backend="reference"))


@pytest.mark.parametrize("far", [0.0, 1e10])
def test_float64_is_rarely_needed_even_with_a_far_codeword(monkeypatch, far):
    settled = []

    def count_and_settle(rows, codebook):
        settled.append(len(rows))
        return exact_codes(rows, codebook)

    monkeypatch.setattr(nearest_code_cpu, "exact_codes", count_and_settle)
    latents, codebooks = randn(1, 20_000, 64), randn(1, 512, 64, seed=1)
    latents[:, 0] = torch.nan
    codebooks[:, 3] = far
    nearest_code(latents, codebooks)
    assert 1 <= sum(settled) < 100


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operation returns."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and not func.is_view:
                self.num_bytes = max(self.num_bytes, tensor.numel() * tensor.element_size())
        return out


@pytest.mark.parametrize(("rows", "size", "dim"), [(60_000, 512, 4), (3000, 40_000, 8), (200, 200, 5000)])
def test_no_intermediate_is_larger_than_a_block(monkeypatch, rows, size, dim):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # the mode does not see other threads
    latents, codebooks = randn(1, rows, dim), randn(1, size, dim, seed=1)
    latents[:, :20] = torch.nan  # some take the way through float64
    with LargestTensor() as largest:
        nearest_code(latents, codebooks, backend="cpu")
    assert 0 < largest.num_bytes <= 4 * 2**20


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize("score_precision", ["float32", "tf32x3", "tf32"])
def test_codes_are_exact_whatever_the_precision_of_scores(backend, score_precision):
    latents, codebooks = randn(2, 500, 24), randn(2, 90, 24, seed=1)
    codes = nearest_code(latents, codebooks, backend=backend, score_precision=score_precision)
    assert torch.equal(codes, nearest_code(latents, codebooks, backend="reference"))


def test_precision_of_scores_must_be_known():
    with pytest.raises(ValueError, match="score_precision must be one of float32, tf32x3, tf32; got 'bf16'"):
        nearest_code(torch.zeros(1, 2, 3), torch.zeros(1, 4, 3), score_precision="bf16")


def test_no_gradient_passes():
    codes = nearest_code(torch.ones(1, 2, 3, requires_grad=True), torch.ones(1, 4, 3, requires_grad=True))
    assert not codes.requires_grad


def test_compiles_into_one_graph():
    @torch.compile(backend="aot_eager", fullgraph=True)
    def search(latents, codebooks):
        return nearest_code(latents * 2, codebooks, codebook_sizes=[5, 3]) + 1

    latents, codebooks = randn(2, 30, 4), randn(2, 5, 4, seed=1)
    expected = nearest_code(latents * 2, codebooks, codebook_sizes=[5, 3]) + 1
    assert torch.equal(search(latents, codebooks), expected)


def test_compiled_operation_keeps_its_contract():
    torch.library.opcheck(
        torch.ops.depthq.nearest_code, (randn(2, 30, 4), randn(2, 5, 4, seed=1), [5, 3], "cpu", "float32")
    )


def test_exports_plain_operations_for_any_number_of_vectors():
    class Search(torch.nn.Module):
        def forward(self, latents, codebooks):
            return nearest_code(latents, codebooks, codebook_sizes=[5, 3])

    codebooks = randn(2, 5, 19)
    codebooks[0, 3] = 1e10
    program = torch.export.export(
        Search(), (randn(2, 30, 19), codebooks), dynamic_shapes=({1: torch.export.Dim("rows", min=2)}, None)
    )
    assert "depthq" not in str(program.graph)
    latents = randn(2, 77, 19, seed=1)
    assert torch.equal(program.module()(latents, codebooks), Search()(latents, codebooks))


def test_backend_is_visible_and_cannot_be_forced_where_it_does_not_run():
    assert which_backend("cpu") == "cpu"
    assert which_backend(torch.device("meta")) == "reference"
    latents, codebooks = torch.zeros(1, 2, 3), torch.zeros(1, 4, 3)
    with pytest.raises(ValueError, match="backend must be one of reference, cpu, triton or None; got 'fast'"):
        nearest_code(latents, codebooks, backend="fast")
    with pytest.raises(ValueError, match="backend 'cpu' must get tensors on the CPU; got meta"):
        nearest_code(latents.to("meta"), codebooks.to("meta"), backend="cpu")


def test_triton_needs_a_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="backend 'triton' must get tensors on a CUDA device and have Triton; got cpu"):
        nearest_code(torch.zeros(1, 2, 3), torch.zeros(1, 4, 3), backend="triton")


def test_triton_is_not_imported_before_it_is_used():
    code = "import sys, depthq.ops; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("latents", "codebooks", "sizes", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(1, 4, 3), None, r"latents must have shape \(M, N, D\); got \(2, 3\)"),
        (torch.zeros(1, 2, 3), torch.zeros(4, 3), None, r"codebooks must have shape \(M, K, D\); got \(4, 3\)"),
        (
            torch.zeros(1, 2, 3).half(),
            torch.zeros(1, 4, 3),
            None,
            r"latents must be float32; got torch.float16; .*float",
        ),
        (torch.zeros(1, 2, 3), torch.zeros(1, 4, 3).double(), None, "codebooks must be float32; got torch.float64"),
        (torch.zeros(2, 2, 3), torch.zeros(1, 4, 3), None, r"M and D of codebooks .*; got \(2, 2, 3\) and \(1, 4, 3\)"),
        (torch.zeros(1, 2, 5), torch.zeros(1, 4, 3), None, r"M and D of codebooks .*; got \(1, 2, 5\) and \(1, 4, 3\)"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 4, 3).to("meta"), None, "latents must be on the device.*meta; got cpu"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 0, 3), None, r"codebooks must hold at least one codeword.*\(1, 0, 3\)"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 4, 3), [5], r"codebook_sizes must be 1 numbers in \[1, 4\]; got \[5\]"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 4, 3), [0], r"codebook_sizes must be 1 numbers in \[1, 4\]; got \[0\]"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 4, 3), [4, 4], r"codebook_sizes must be 1 numbers.*; got \[4, 4\]"),
    ],
)
def test_bad_input_is_named(latents, codebooks, sizes, message):
    with pytest.raises(ValueError, match=message):
        nearest_code(latents, codebooks, codebook_sizes=sizes)
