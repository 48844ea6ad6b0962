"""Codes of a 1-D signal from end to end: speech-like features, quantized, stored, read again and analysed."""

import json
import math

import pytest
import torch

import depthq
from depthq.analysis import CodeCounts, summarize_codes
from depthq.cli import main
from depthq.codes import CodesBatch
from depthq.codes.file import read_codes, read_header, write_codes


def speech_like_features(utterances: int = 8, channels: int = 16, frames: int = 50) -> torch.Tensor:
    """Slow random walks, as spectra of speech change little from one frame to the next: float32 (B, C, T)."""
    steps = torch.randn(utterances, channels, frames, generator=torch.Generator().manual_seed(0))
    return steps.cumsum(2) / math.sqrt(frames)


@pytest.fixture(scope="module")
def quantizer():
    """Four codebooks of 8 codes, each for four channels of a frame."""
    torch.manual_seed(0)
    quantizer = depthq.DepthwiseQuantizer(dim=16, num_codebooks=4, codebook_size=8, axis=1)
    for _ in range(5):
        quantizer(speech_like_features())
    return quantizer.eval()


def test_speech_is_quantized_stored_read_and_analysed(quantizer, tmp_path):
    features = speech_like_features()
    codes = depthq.Codes((quantizer.encode(features),), (quantizer.codebook_sizes,))
    assert codes.shapes == ((4, 50),)
    assert codes.num_bits() == 50 * 4 * 3
    ids = [f"speaker-{number % 2}/{number}.wav" for number in range(8)]
    labels = [f"speaker-{number % 2}" for number in range(8)]
    path = tmp_path / "speech.parquet"
    batches = [
        CodesBatch(codes[start : start + 4], ids[start : start + 4], labels[start : start + 4]) for start in (0, 4)
    ]
    assert write_codes(path, batches, model_fingerprint=None) == 8

    assert read_header(path).num_images == 8
    again = list(read_codes(path))
    assert [label for batch in again for label in batch.labels or ()] == labels
    read = depthq.Codes.cat(batch.codes for batch in again)
    assert torch.equal(quantizer.decode(read.levels[0]), quantizer.decode(codes.levels[0]))
    error = (quantizer.decode(read.levels[0]) - features).square().mean()
    assert error < 0.5 * features.var()  # far better than the mean alone

    summary = summarize_codes(CodeCounts(codes.codebook_sizes).update(read))
    assert (summary.images, summary.levels[0].grid, summary.levels[0].positions) == (8, [50], 400)
    assert main(["analyze", str(path), "--out", str(tmp_path / "out")]) == 0
    (run,) = json.loads((tmp_path / "out" / "analysis.json").read_text())["runs"]
    assert run["levels"][0]["entropy_nats"] == pytest.approx(summary.levels[0].entropy_nats)
    assert (tmp_path / "out" / "position_entropy.png").is_file()
