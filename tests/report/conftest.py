"""A run as `depthq train` leaves it, made by hand: an untrained model, and metrics that are known."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from depthq.analysis import CodeCounts, summarize_codes
from depthq.measure import PerImage, measure
from depthq.models import DQAE, DQAEConfig
from depthq.report import AnalyzedRun, Measured
from depthq.training import DataConfig, RunConfig, TrainingConfig

METRICS = [
    {"step": 5, "loss": 2.0, "mse_normalized": 1.0, "commitment_loss": 0.2, "usage": 0.5, "perplexity": 3.0},
    {"step": 10, "loss": 1.0, "mse_normalized": 0.1, "commitment_loss": 0.1, "usage": 0.75, "perplexity": 5.0},
    {"step": 10, "validation_mse_normalized": 0.2, "validation_psnr_db": 20.0},
]


@pytest.fixture(scope="session")
def images():
    return torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def make_model():
    def make(**settings) -> DQAE:
        torch.manual_seed(0)
        tiny = {"num_codebooks": 3, "codebook_size": (4, 8), "codebook_dim": 2, "channels": (4,)}
        return DQAE(DQAEConfig(**{**tiny, "num_residual_blocks": 0, **settings})).eval()

    return make


@pytest.fixture(scope="session")
def analyzed(images, make_model):
    def analyze(label: str = "ours", **settings) -> AnalyzedRun:
        model = make_model(**settings)
        counts = CodeCounts(model.codebook_sizes)
        measurement = measure(model, [images], counts=counts)
        return AnalyzedRun(label, counts, summarize_codes(counts), model, measurement)

    return analyze


@pytest.fixture
def make_run(tmp_path, images, make_model):
    """Folder, model and measurement of a run; keyword arguments are the model's, `data` the source's name."""

    def make(data: str = "photos", **settings) -> tuple[Path, DQAE, Measured]:
        run, model = tmp_path / "demo", make_model(**settings)
        model.save_pretrained(run / "model")
        config = RunConfig(
            data=DataConfig(data=data, image_size=16), model=model.config, training=TrainingConfig(steps=10)
        )
        (run / "config.yaml").write_text(yaml.safe_dump(config.to_flat_dict(), sort_keys=False))
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
        counts = CodeCounts(model.codebook_sizes) if model.codebook_sizes else None
        per_image = PerImage(kept=3)
        measurement = measure(model, [images], counts=counts, per_image=per_image)
        codes = None if counts is None else summarize_codes(counts)
        return run, model, Measured(data, "test", measurement, codes, images[:20], per_image)

    return make
