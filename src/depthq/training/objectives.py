"""What training minimises.

An objective is a function of the model, the images and what the model made of them. Another one needs no change to the
model, and may build on the paper's:

    def smooth_objective(model, images, output):
        paper = paper_objective(model, images, output)
        smoothness = output.parameters.diff(dim=-1).square().mean()
        return ObjectiveTerms(paper.loss + 0.1 * smoothness, {**paper.metrics, "smoothness": smoothness})

    train(config, run, objective=smooth_objective)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from depthq.models import DQAE, DQAEOutput
from depthq.units import nats_to_bits

CAUSAL_PIXELS = 256
"""Pixels of each image, drawn anew every step, that a causal head learns from: neighbours are alike, so all of them
would tell little more."""


@dataclass(frozen=True)
class ObjectiveTerms:
    """The value of an objective on a batch."""

    loss: Tensor
    """Scalar: what is minimised."""
    metrics: Mapping[str, Tensor]
    """Scalars to log beside the loss, by names that carry their unit."""


class Objective(Protocol):
    """What `train` can minimise: any function of these arguments."""

    def __call__(self, model: DQAE, images: Tensor, output: DQAEOutput, /) -> ObjectiveTerms:
        """Score `output`, which `model` made of `images` uint8 (B, C, H, W)."""
        ...


def paper_objective(model: DQAE, images: Tensor, output: DQAEOutput) -> ObjectiveTerms:
    """-log p(image | codes) in nats per dim, plus the quantizers' losses of all levels (Eq. 5).

    A causal head, which the paper does not have, adds its own, of pixels drawn at random: a second term beside the
    direct one, without which the codes would be left to fade.

    The cost of the codes is constant under the uniform prior, and not in it.

    Args:
        model: The model that is trained; for a loop of your own:
            `paper_objective(model, images, model(images)).loss.backward()`.
        images: uint8 (B, C, H, W).
        output: What `model` made of `images`.

    Returns:
        The loss; among the metrics `nll_bits_per_dim`, or `mse_normalized` for L2, which is a density and has no bits,
        with a quantizer `commitment_loss`, summed over levels and codebooks, before its weight, and with a causal head
        `causal_nll_bits_per_dim`.
    """
    log_prob = model.likelihood.log_prob(output.parameters, images)
    metrics = _likelihood_metrics(model, log_prob.detach())
    quantized = [level for level in output.levels if level.codebook_sizes]
    if quantized:
        metrics["commitment_loss"] = sum(
            (level.commitment_loss.detach() for level in quantized), log_prob.new_zeros(())
        )
    loss = -log_prob.mean() + sum(level.loss for level in output.levels)
    if model.causal_head is not None:
        assert output.features is not None
        shape = (len(images), CAUSAL_PIXELS)
        pixels = torch.randint(images[0, 0].numel(), shape, device=images.device)
        causal_nll_nats = -model.causal_head.log_prob(images, output.features, pixels).mean()
        metrics["causal_nll_bits_per_dim"] = nats_to_bits(causal_nll_nats.detach())
        loss = loss + causal_nll_nats
    return ObjectiveTerms(loss, metrics)


def _likelihood_metrics(model: DQAE, log_prob: Tensor) -> dict[str, Tensor]:
    nll_nats_per_dim = -log_prob.sum((1, 2, 3)).mean() / log_prob[0].numel()
    if model.likelihood.is_discrete:
        return {"nll_bits_per_dim": nats_to_bits(nll_nats_per_dim)}
    return {"mse_normalized": nll_nats_per_dim - 0.5 * math.log(math.pi)}
