"""The Triton kernels: on a GPU where there is one, else in Triton's interpreter, in a process of its own."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from depthq.ops import nearest_code

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

pytest.importorskip("triton")
runs_kernels = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()),
    reason="needs a GPU; the interpreter runs it in a process of its own",
)


@pytest.mark.skipif(INTERPRETED, reason="this is the process with the interpreter")
def test_kernels_pass_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def assert_agrees_with_reference(latents, codebooks, sizes=None):
    codes = nearest_code(latents, codebooks, codebook_sizes=sizes, backend="triton")
    assert torch.equal(codes, nearest_code(latents, codebooks, codebook_sizes=sizes, backend="reference"))


@runs_kernels
@pytest.mark.parametrize(
    ("num_codebooks", "rows", "size", "dim"),
    [(1, 1, 1, 1), (2, 0, 5, 3), (3, 65, 7, 3), (2, 70, 130, 20), (1, 64, 64, 80), (1, 10, 200, 130)],
)
def test_any_shape(num_codebooks, rows, size, dim):
    assert_agrees_with_reference(randn(num_codebooks, rows, dim), randn(num_codebooks, size, dim, seed=1))


@runs_kernels
def test_any_strides():
    codebooks = randn(20, 3, 5).transpose(0, 1)
    assert_agrees_with_reference(randn(30, 3, 5, seed=1).transpose(0, 1), codebooks)
    assert_agrees_with_reference(randn(30, 5, seed=2).expand(3, 30, 5), codebooks)
    assert_agrees_with_reference(randn(3, 5, 30, seed=3).transpose(1, 2), codebooks)


@runs_kernels
def test_padding_is_never_chosen_whatever_it_holds():
    codebooks = randn(3, 100, 4)
    codebooks[1, 70:], codebooks[2, 1:] = torch.nan, 0.0
    assert_agrees_with_reference(randn(3, 40, 4, seed=1), codebooks, sizes=[100, 70, 1])


@runs_kernels
def test_a_copy_of_a_codeword_is_never_chosen():
    codebooks = randn(1, 150, 19)
    codebooks[:, 75:] = codebooks[:, :75]
    latents = randn(1, 70, 19, seed=1)
    assert nearest_code(latents, codebooks, backend="triton").max() < 75
    assert_agrees_with_reference(latents, codebooks)


@runs_kernels
@pytest.mark.parametrize("far", [1e6, 1e8, 1e10, 1e15])
def test_a_far_codeword_does_not_blur_the_near_ones(far):
    literal = torch.tensor([[[0.0], [1.0], [far]]], device=DEVICE)
    latents = torch.tensor([[[0.9], [0.1], [far]]], device=DEVICE)
    assert nearest_code(latents, literal, backend="triton").tolist() == [[1, 0, 2]]
    codebooks = randn(1, 64, 16)
    codebooks[:, 5] = far
    assert_agrees_with_reference(randn(1, 40, 16, seed=1), codebooks)


@runs_kernels
def test_near_ties_far_from_the_origin_are_settled_in_float64():
    codebooks = randn(1, 40, 6) + 1000.0
    codebooks[:, 20:] = codebooks[:, :20] + 1e-4
    assert_agrees_with_reference(codebooks[:, :20] + 4e-5, codebooks)


@runs_kernels
def test_vectors_that_are_not_finite_get_code_zero_and_spoil_no_other():
    latents = randn(1, 50, 4)
    latents[0, 3, 1], latents[0, 7, 0], latents[0, 8] = torch.nan, torch.inf, -torch.inf
    assert_agrees_with_reference(latents, randn(1, 9, 4, seed=1))


@runs_kernels
@pytest.mark.parametrize("score_precision", ["tf32x3", "tf32"])
def test_tensor_cores_give_the_same_codes(score_precision):
    latents, codebooks = randn(2, 100, 32), randn(2, 90, 32, seed=1)
    search = partial(nearest_code, latents, codebooks, codebook_sizes=[90, 80])
    assert torch.equal(search(backend="triton", score_precision=score_precision), search(backend="reference"))
