"""The recipes of docs/swap.md for code bases that are no packages: shapes, losses and the layout of codes."""

import importlib.util
from pathlib import Path

import pytest
import torch

spec = importlib.util.spec_from_file_location(
    "call_signatures", Path(__file__).parents[2] / "examples/call_signatures.py"
)
recipes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipes)


@pytest.mark.parametrize("num_codebooks", [1, 4])
def test_taming(num_codebooks):
    torch.manual_seed(0)
    quantizer = recipes.TamingQuantizer(32, 16, beta=0.25, num_codebooks=num_codebooks)
    z = torch.randn(2, 16, 5, 3, requires_grad=True)
    quantized, loss, (perplexity, encodings, indices) = quantizer(z)
    (quantized.square().mean() + loss).backward()
    assert (perplexity, encodings) == (None, None)
    assert indices.shape == ((30,) if num_codebooks == 1 else (30, 4))
    assert torch.equal(quantizer.get_codebook_entry(indices, (2, 5, 3, 16)), quantized)
    rows = quantized.permute(0, 2, 3, 1).flatten(0, 2)  # theirs go through positions row by row
    codebook = quantizer.quantizer.codebooks[0]
    assert torch.equal(codebook[indices.view(30, -1)[:, 0]], rows[:, : codebook.shape[1]])


@pytest.mark.parametrize("l2_norm", [True, False])
def test_llamagen(l2_norm):
    torch.manual_seed(0)
    quantizer = recipes.LlamaGenQuantizer(32, 8, 0.25, 0.1, l2_norm, True)
    z = torch.randn(2, 8, 5, 3, requires_grad=True)
    quantized, (vq_loss, commit_loss, entropy_loss, usage), (_, _, indices) = quantizer(z)
    (quantized.square().mean() + vq_loss + commit_loss + entropy_loss).backward()
    torch.testing.assert_close(commit_loss, 0.25 * vq_loss)
    assert entropy_loss < 0
    assert 0 < usage <= 1
    assert torch.equal(quantizer.get_codebook_entry(indices, (2, 8, 5, 3)), quantized)
    assert torch.equal(
        quantizer.get_codebook_entry(indices, (2, 5, 3, 8), channel_first=False).permute(0, 3, 1, 2), quantized
    )
    assert quantizer.get_codebook_entry(indices).shape == (30, 8)
    _, losses, _ = quantizer.eval()(z)
    assert losses == (None, None, None, 0)


def test_unitok():
    torch.manual_seed(0)
    quantizer = recipes.UniTokQuantizer(64, 16, num_codebooks=4, use_entropy_loss=True)
    features = torch.randn(2, 30, 16, requires_grad=True)
    quantized, vq_loss, entropy_loss, usages = quantizer(features)
    (quantized.square().mean() + vq_loss + entropy_loss).backward()
    assert 0 < usages <= 100
    indices = quantizer.f_to_idx(features)
    assert indices.shape == (2, 4, 30)
    assert torch.equal(quantizer.idx_to_f(indices), quantized)
    assert torch.allclose(quantized.unflatten(-1, (4, 4)).norm(dim=-1), torch.ones(2, 30, 4))
    assert indices.max() < 16  # 64 codes in all
