"""The training step of a DQ-AE, as Lightning wants it."""

import math

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from depthq.measure import Measurement, Measuring
from depthq.models import DQAE, DQAEOutput
from depthq.quantizers import CodebookHealth, NonFiniteLatentsError
from depthq.training.config import TrainingConfig
from depthq.training.objectives import Objective, paper_objective


class DQAETraining(LightningModule):
    """Trains and validates a DQ-AE.

    Args:
        model: The model to train.
        config: How.
        objective: What to minimise.
    """

    measuring: Measuring  # of the validation that goes on, or was the last

    def __init__(self, model: DQAE, config: TrainingConfig, objective: Objective = paper_objective):
        super().__init__()
        self.model = model
        model.level_dropout, model.codebook_dropout = config.level_dropout, config.codebook_dropout
        self.config = config
        self.objective = objective
        self.step_metrics: dict[str, float] = {}
        """Of the last step that was to be logged, each with its unit in the name."""
        self.last_measurement: Measurement | None = None
        if config.compile:
            model.compile()  # in place: a wrapper would be a second module with the same weights
            self.objective = torch.compile(objective)

    def training_step(self, images: Tensor, _batch_index: int) -> Tensor:
        step = self.global_step + 1
        self._seed(step)
        try:
            output: DQAEOutput = self.model(images)
        except NonFiniteLatentsError as error:
            raise NonFiniteLatentsError(f"training stopped at step {step}: {error}") from error
        terms = self.objective(self.model, images, output)
        if not terms.loss.isfinite():
            raise NonFiniteLatentsError(f"training stopped at step {step}: loss must be finite; got {terms.loss}")
        if step % self.config.log_every == 0:
            metrics = {"loss": terms.loss, **terms.metrics, **_usage_metrics(output)}
            self.step_metrics = {name: value.item() for name, value in metrics.items()}
        return terms.loss

    def _seed(self, step: int) -> None:
        """What a step draws follows from the step alone: a run that resumes draws what it would have drawn."""
        process = self.config.seed * self.trainer.world_size + self.global_rank
        torch.manual_seed(process * self.config.steps + step)

    def on_validation_epoch_start(self) -> None:
        self.measuring = Measuring(self.model)

    def validation_step(self, images: Tensor, _batch_index: int) -> None:
        mine = images[self.global_rank :: self.trainer.world_size]
        if len(mine):
            with torch.autocast(self.device.type, enabled=False):  # as `depthq evaluate` does
                self.measuring.update(mine, self.model(mine))

    def on_validation_epoch_end(self) -> None:
        self.last_measurement = self.measuring.compute()

    def validation_metrics(self) -> dict[str, float]:
        """What metrics.jsonl shows of the last validation; metrics that the likelihood does not have are left out."""
        shown = (
            "total_bits_per_dim",
            "nll_bits_per_dim",
            "causal_nll_bits_per_dim",
            "mse_normalized",
            "psnr_db",
            "ssim",
        )
        metrics = {f"validation_{name}": getattr(self.last_measurement, name) for name in shown}
        for level, health in self._codebook_health().items():
            metrics[f"level_{level}_lowest_usage"] = health.usage.min().item()
            metrics[f"level_{level}_lowest_perplexity"] = health.perplexity.min().item()
            metrics[f"level_{level}_redrawn"] = health.redrawn.sum().item()
        return {name: value for name, value in metrics.items() if value is not None}

    def warnings(self) -> list[str]:
        """What people should hear of after a validation: codebooks that have collapsed."""
        return [
            f"codebooks of level {level} have collapsed\n{health}"
            for level, health in self._codebook_health().items()
            if health.collapsed.any()
        ]

    def _codebook_health(self) -> dict[int, CodebookHealth]:
        """How the codebooks of each level fare, of those quantizers that can tell."""
        health = {number: level.quantizer.health() for number, level in enumerate(self.model.levels)}
        return {level: found for level, found in health.items() if found is not None}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """A step with a broken gradient would ruin weights that the next checkpoint keeps."""
        if self.trainer.precision == "16-mixed":
            return  # its loss scaler meets such gradients as a matter of course, and skips them
        norms = torch.nn.utils.get_total_norm([w.grad for w in self.model.parameters() if w.grad is not None])
        if not norms.isfinite():
            step = self.global_step + 1
            raise NonFiniteLatentsError(
                f"training stopped at step {step}: the gradient must be finite; got norm {norms}; "
                "lower the learning rate or lengthen the warm-up"
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        config = self.config
        likelihood, head = self.model.likelihood, list(self.model.head.parameters())
        others = [weight for weight in self.model.parameters() if all(weight is not of_head for of_head in head)]
        optimizer = torch.optim.AdamW(
            [{"params": others}, {"params": head, "lr": config.learning_rate * likelihood.head_learning_rate}],
            lr=config.learning_rate,
            betas=(0.9, likelihood.adam_beta2),
            weight_decay=config.weight_decay,
        )

        def warm_up_and_cosine(step: int) -> float:
            warm_up = min((step + 1) / max(config.warmup_steps, 1), 1.0)
            return warm_up * 0.5 * (1 + math.cos(math.pi * min(step / config.steps, 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_and_cosine)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _usage_metrics(output: DQAEOutput) -> dict[str, Tensor]:
    """Means over levels of how evenly their codebooks are used by this batch; nothing without codebooks."""
    levels = [level for level in output.levels if level.codebook_sizes]
    if not levels:
        return {}
    return {
        name: torch.stack([getattr(level, name).mean() for level in levels]).mean() for name in ("usage", "perplexity")
    }
