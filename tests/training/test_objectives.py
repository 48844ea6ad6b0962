"""What is minimised: the paper's objective, and others in its place."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from depthq import DQAE
from depthq.models import PRESETS
from depthq.runs import RunFolder, load_model, read_metrics
from depthq.training import TRAINING_PRESETS, DataConfig, ObjectiveTerms, RunConfig, paper_objective, train

TINY = PRESETS["tiny"]


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def config(photos):
    """Of a run of a few steps, the metrics of each of which are logged."""
    training = replace(TRAINING_PRESETS["tiny"], steps=4, log_every=1)
    return RunConfig(data=DataConfig(data=str(photos)), model=replace(TINY, codebook_size=(8, 8)), training=training)


@pytest.mark.parametrize("likelihood", ["categorical", "logistic_mixture"])
def test_paper_objective_is_nll_per_dim_plus_weighted_commitment(images, likelihood):
    model = DQAE(replace(TINY, likelihood=likelihood, codebook_size=(8, 8), commitment_weight=0.5))
    output = model(images)
    terms = paper_objective(model, images, output)
    nll_nats_per_dim = -model.likelihood.log_prob(output.parameters, images).mean()
    commitment_loss = sum(level.commitment_loss for level in output.levels)
    torch.testing.assert_close(terms.loss, nll_nats_per_dim + 0.5 * commitment_loss)
    torch.testing.assert_close(terms.metrics["commitment_loss"], commitment_loss.detach())
    torch.testing.assert_close(terms.metrics["nll_bits_per_dim"], nll_nats_per_dim.detach() / torch.tensor(2.0).log())


def test_metrics_of_l2_have_no_bits(images):
    model = DQAE(TINY)
    output = model(images)
    metrics = paper_objective(model, images, output).metrics
    mean = (images.float() / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    assert metrics.keys() == {"mse_normalized", "commitment_loss"}
    torch.testing.assert_close(metrics["mse_normalized"], (output.parameters - mean).square().mean().detach())


def test_without_a_quantizer_there_is_no_commitment(images):
    model = DQAE(replace(TINY, quantizer="none", likelihood="categorical"))
    assert paper_objective(model, images, model(images)).metrics.keys() == {"nll_bits_per_dim"}


def test_a_term_is_added_without_touching_the_model(tmp_path, config):
    def with_mean_colour(model, images, output):
        """The paper's, and the squared error of images seen from far away."""
        paper = paper_objective(model, images, output)
        mean = model.likelihood.mean(output.parameters)
        colour = (mean - images).mean((2, 3)).div(255).square().mean()
        return ObjectiveTerms(paper.loss + 10 * colour, {**paper.metrics, "mean_colour_loss": colour})

    train(config, tmp_path / "run", objective=with_mean_colour, progress=False)
    train(config, tmp_path / "paper", progress=False)
    rows = [row for row in read_metrics(RunFolder(tmp_path / "run").metrics) if "loss" in row]
    assert all({"mse_normalized", "commitment_loss", "mean_colour_loss"} < row.keys() for row in rows)
    (first, paper) = (read_metrics(RunFolder(tmp_path / name).metrics)[0] for name in ("run", "paper"))
    assert first["loss"] == pytest.approx(paper["loss"] + 10 * first["mean_colour_loss"])
    assert load_model(tmp_path / "run").fingerprint() != load_model(tmp_path / "paper").fingerprint()


def test_levels_can_weigh_differently(tmp_path, config):
    def coarse_only(model, images, output):
        """The fine level's commitment counts nothing."""
        nll = -model.likelihood.log_prob(output.parameters, images).mean()
        weights = (1.0, 0.0)
        return ObjectiveTerms(nll + sum(w * out.loss for w, out in zip(weights, output.levels, strict=True)), {})

    train(config, tmp_path / "run", objective=coarse_only, progress=False)
    rows = read_metrics(RunFolder(tmp_path / "run").metrics)
    assert rows[0].keys() == {"step", "loss", "usage", "perplexity", "images_per_second"}


def test_paper_objective_of_an_own_loop_needs_neither_lightning_nor_torchmetrics():
    missing = ["lightning", "torchmetrics", "datasets", "jsonargparse", "pyarrow", "PIL", "matplotlib"]
    script = f"import sys; sys.modules |= dict.fromkeys({missing})\nfrom depthq.training import paper_objective"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_other_names_are_refused_as_of_any_module():
    with pytest.raises(ImportError, match="cannot import name 'mystery'"):
        from depthq.training import mystery  # noqa: F401
