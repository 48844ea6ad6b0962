"""The training step of a DQ-AE, as Lightning wants it."""

import math

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from depthq.measure import Evaluation, Evaluator
from depthq.models import DQAE, DQAEOutput
from depthq.quantizers import CodebookHealth, NonFiniteLatentsError
from depthq.training.config import TrainingConfig
from depthq.units import nats_to_bits


class DQAETraining(LightningModule):
    """Trains and validates a DQ-AE.

    Args:
        model: The model to train.
        config: How.
    """

    def __init__(self, model: DQAE, config: TrainingConfig):
        super().__init__()
        self.model = model
        self.config = config
        self.evaluator = Evaluator(model)
        self.figures: dict[str, float] = {}
        self.last_evaluation: Evaluation | None = None
        if config.compile:
            model.compile()  # in place: a wrapper would be a second module with the same weights

    def training_step(self, images: Tensor, _batch_index: int) -> Tensor:
        step = self.global_step + 1
        try:
            output: DQAEOutput = self.model(images)
        except NonFiniteLatentsError as error:
            raise NonFiniteLatentsError(f"training stopped at step {step}: {error}") from error
        if not output.loss.isfinite():
            raise NonFiniteLatentsError(f"training stopped at step {step}: loss must be finite; got {output.loss}")
        if step % self.config.log_every == 0:
            self.figures = self._training_figures(output, images)
        return output.loss

    def _training_figures(self, output: DQAEOutput, images: Tensor) -> dict[str, float]:
        """What the progress bar and metrics.jsonl show of a step, each with its unit in the name."""
        figures = {"loss": output.loss.detach()}
        nll_nats_per_dim = output.nll_nats.detach().mean() / images[0].numel()
        if self.model.likelihood.is_discrete:
            figures["nll_bits_per_dim"] = nats_to_bits(nll_nats_per_dim)
        else:
            figures["mse_normalized"] = nll_nats_per_dim - 0.5 * math.log(math.pi)
        if output.levels:
            figures["commitment_loss"] = output.commitment_loss.detach()
            figures["usage"] = torch.stack([level.usage.mean() for level in output.levels]).mean()
            figures["perplexity"] = torch.stack([level.perplexity.mean() for level in output.levels]).mean()
        return {name: value.item() for name, value in figures.items()}

    def on_validation_epoch_start(self) -> None:
        self.evaluator = Evaluator(self.model).to(self.device)

    def validation_step(self, images: Tensor, _batch_index: int) -> None:
        mine = images[self.global_rank :: self.trainer.world_size]
        if len(mine):
            with torch.autocast(self.device.type, enabled=False):  # as `depthq evaluate` does
                self.evaluator.update(mine, self.model(mine))

    def on_validation_epoch_end(self) -> None:
        self.last_evaluation = self.evaluator.compute()

    def validation_figures(self) -> dict[str, float]:
        """What metrics.jsonl shows of the last validation; figures that the likelihood does not have are left out."""
        shown = ("total_bits_per_dim", "nll_bits_per_dim", "mse_normalized", "psnr_db", "ssim")
        figures = {f"validation_{name}": getattr(self.last_evaluation, name) for name in shown}
        for level, health in self.codebook_health().items():
            figures[f"level_{level}_lowest_usage"] = health.usage.min().item()
            figures[f"level_{level}_lowest_perplexity"] = health.perplexity.min().item()
            figures[f"level_{level}_redrawn"] = health.redrawn.sum().item()
        return {name: value for name, value in figures.items() if value is not None}

    def codebook_health(self) -> dict[int, CodebookHealth]:
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
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

        def warm_up_and_cosine(step: int) -> float:
            warm_up = min((step + 1) / max(config.warmup_steps, 1), 1.0)
            return warm_up * 0.5 * (1 + math.cos(math.pi * min(step / config.steps, 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_and_cosine)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["torch_random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        torch.set_rng_state(checkpoint["torch_random_state"])
