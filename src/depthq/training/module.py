"""The training step of a DQ-AE, as Lightning wants it."""

import torch
from torch import Tensor

from depthq.measure import Measurement, Measuring
from depthq.models import DQAE, DQAEOutput
from depthq.quantizers import CodebookHealth, NonFiniteLatentsError
from depthq.training.config import TrainingConfig
from depthq.training.loop import REMEDY, LoopModule
from depthq.training.objectives import Objective, paper_objective


class DQAETraining(LoopModule):
    """Trains and validates a DQ-AE.

    Args:
        model: The model to train.
        config: How.
        objective: What to minimise.
    """

    model: DQAE
    config: TrainingConfig
    measuring: Measuring  # of the validation that goes on, or was the last

    def __init__(self, model: DQAE, config: TrainingConfig, objective: Objective = paper_objective):
        super().__init__(model, config)
        model.level_dropout, model.codebook_dropout = config.level_dropout, config.codebook_dropout
        self.objective = objective
        self.last_measurement: Measurement | None = None
        if config.compile:
            model.compile()  # in place: a wrapper would be a second module with the same weights
            self.objective = torch.compile(objective)

    def training_step(self, images: Tensor, _batch_index: int) -> Tensor:
        step = self.global_step + 1
        self.seed(step)
        try:
            output: DQAEOutput = self.model(images)
        except NonFiniteLatentsError as error:
            raise NonFiniteLatentsError(f"training stopped at step {step}: {error}") from error
        terms = self.objective(self.model, images, output)
        if not terms.loss.isfinite():
            raise NonFiniteLatentsError(
                f"training stopped at step {step}: the loss must be finite; got {terms.loss}; {REMEDY}"
            )
        if step % self.config.log_every == 0:
            metrics = {"loss": terms.loss, **terms.metrics, **_usage_metrics(output)}
            self.step_metrics = dict(zip(metrics, self._mean_over_processes(list(metrics.values())), strict=True))
        return terms.loss

    def _mean_over_processes(self, values: list[Tensor]) -> list[float]:
        """Of equal parts of a batch: what the joined batch has, but for usage and perplexity, which are of a part."""
        stacked = torch.stack([value.detach().float() for value in values])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(stacked)
            stacked /= self.trainer.world_size
        return stacked.tolist()

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

    def optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        likelihood, head = self.model.likelihood, list(self.model.head.parameters())
        others = [weight for weight in self.model.parameters() if all(weight is not of_head for of_head in head)]
        return torch.optim.AdamW(
            [{"params": others}, {"params": head, "lr": config.learning_rate * likelihood.head_learning_rate}],
            lr=config.learning_rate,
            betas=(0.9, likelihood.adam_beta2),
            weight_decay=config.weight_decay,
        )


def _usage_metrics(output: DQAEOutput) -> dict[str, Tensor]:
    """Means over levels of how evenly their codebooks are used by this batch; nothing without codebooks."""
    levels = [level for level in output.levels if level.codebook_sizes]
    if not levels:
        return {}
    return {
        name: torch.stack([getattr(level, name).mean() for level in levels]).mean() for name in ("usage", "perplexity")
    }
