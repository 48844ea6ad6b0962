"""What a user writes with the public names; `make check` reads it with every rule on, and nothing may be unknown."""

from dataclasses import replace
from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from torch import Tensor

import depthq
from depthq.analysis.bootstrap import Interval, bootstrap_interval
from depthq.analysis.mutual_information import mutual_information_nats
from depthq.data import ImageBatch, ImageBatches, ImageDataset, evaluation_loader, open_images, training_loader
from depthq.measure import Measurement, measure
from depthq.training import DataConfig, ObjectiveTerms, RunConfig, TrainingConfig, paper_objective, train


def quantizers(x: Tensor) -> None:
    depthwise = depthq.DepthwiseQuantizer(dim=640, num_codebooks=10, codebook_size=512, axis=1, commitment_weight=0.25)
    out = depthwise(x)
    assert_type(out, depthq.QuantizerOutput)
    assert_type(out.quantized, Tensor)
    assert_type(out.codes, Tensor)
    assert_type(out.loss, Tensor)
    assert_type(out.usage, Tensor)
    assert_type(out.perplexity, Tensor)
    assert_type(depthwise.encode(x), Tensor)
    assert_type(depthwise.decode(out.codes), Tensor)
    assert_type(depthwise.fit(np.zeros((100, 640), np.float32), steps=10), depthq.DepthwiseQuantizer)
    assert_type(depthwise.health(), depthq.CodebookHealth)
    assert_type(depthwise.codebook_sizes, tuple[int, ...])
    shared = depthq.SharedQuantizer(dim=64, num_codebooks=2, codebook_size=[16, 8])
    residual = depthq.ResidualQuantizer(dim=64, num_codebooks=4, codebook_size=16, quantizer_dropout=0.5)
    assert_type(shared(x, mask=x[:, 0] > 0), depthq.QuantizerOutput)
    assert_type(residual(x), depthq.QuantizerOutput)
    scalar = depthq.ScalarQuantizer(dim=12, num_codebooks=4, codebook_size=240, values_per_dim=[8, 6, 5])
    binary = depthq.BinaryQuantizer(dim=32, num_codebooks=4, codebook_size=256, on_sphere=False)
    assert_type(scalar(x), depthq.QuantizerOutput)
    assert_type(binary(x), depthq.QuantizerOutput)
    assert_type(scalar.encode(x), Tensor)
    assert_type(binary.decode(out.codes), Tensor)


class MyModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quantizer = depthq.DepthwiseQuantizer(dim=64, num_codebooks=4, codebook_size=16)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        out = self.quantizer(latents)
        return out.quantized, out.loss


def models(images: Tensor, folder: Path) -> None:
    config = depthq.DQAEConfig(num_codebooks=5, codebook_size=(256, 128), likelihood="logistic_mixture")
    model = depthq.DQAE(replace(config, channels=(8, 16)))
    out = model(images)
    assert_type(out, depthq.DQAEOutput)
    assert_type(out.parameters, Tensor)
    assert_type(out.codes, depthq.Codes | None)
    for level in out.levels:
        assert_type(level, depthq.QuantizerOutput)
    model.save_pretrained(folder)
    loaded = depthq.DQAE.from_pretrained(folder)
    assert_type(loaded, depthq.DQAE)
    assert_type(loaded.config.num_codebooks, int)
    codes = loaded.encode(images)
    assert_type(codes, depthq.Codes)
    assert_type(codes.levels, tuple[Tensor, ...])
    assert_type(codes.codebook_sizes, tuple[tuple[int, ...], ...])
    assert_type(codes.num_bits(), float)
    assert_type(loaded.decode(codes, levels=[0]), Tensor)
    assert_type(loaded.reconstruct(images), Tensor)
    assert_type(loaded.fingerprint(), str)


def data(folder: Path, model: depthq.DQAE) -> None:
    images = open_images(folder, "train", image_size=32, on_bad_image="skip")
    assert_type(images, ImageDataset)
    assert_type(images[0], np.ndarray | None)
    for batch in training_loader(images, batch_size=8, num_steps=10, seed=0):
        assert_type(batch, Tensor)
        terms = paper_objective(model, batch, model(batch))
        assert_type(terms, ObjectiveTerms)
    for batch in evaluation_loader(images, batch_size=8):
        assert_type(batch, Tensor)
    for batch in ImageBatches(images, batch_size=8):
        assert_type(batch, ImageBatch)
        assert_type(batch.images, Tensor)
    measured = measure(model, evaluation_loader(images, batch_size=8))
    assert_type(measured, Measurement)
    assert_type(measured.images, int)


def training(run: Path) -> None:
    config = RunConfig(data=DataConfig(data="bundled"), model=depthq.DQAEConfig(), training=TrainingConfig(steps=10))
    assert_type(train(config, run, objective=paper_objective), Measurement)


def analysis(codes: depthq.Codes, features: Tensor) -> None:
    counts = depthq.analysis.CodeCounts(codes.codebook_sizes)
    counts.update(codes)
    assert_type(depthq.analysis.code_entropy(counts), depthq.analysis.CodeEntropy)
    information = depthq.analysis.pairwise_mutual_information(counts, estimator="miller_madow")
    assert_type(information, depthq.analysis.MutualInformation)
    assert_type(information.mean_pairwise_nats, float)
    interval = bootstrap_interval(counts.joint((0, 0), (0, 1)), mutual_information_nats, "plugin")
    assert_type(interval, Interval)
    assert_type(interval.estimate_bits, float)
    summary = depthq.analysis.summarize_codes(counts)
    assert_type(summary, depthq.analysis.CodeSummary)
    assert_type(summary.images, int)
    assert_type(depthq.features.recommend_axis(features), depthq.features.AxisRecommendation)
