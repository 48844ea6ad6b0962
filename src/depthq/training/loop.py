"""What the training step of every network here has in common."""

import math
from abc import abstractmethod

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from depthq.quantizers import NonFiniteLatentsError
from depthq.training.config import LoopConfig

REMEDY = (
    "lower the learning rate or lengthen the warm-up in a new run, which --start-from lets begin with this one's "
    "weights: resumed, it would stop at the same step"
)
"""For a loss or a gradient that is not finite."""


class LoopModule(LightningModule):
    """A network in training: its seeds, its schedule, and a stop before a broken step ruins the weights.

    Args:
        model: The network.
        config: How it is trained.
    """

    def __init__(self, model: nn.Module, config: LoopConfig):
        super().__init__()
        self.model = model
        self.config = config
        self.step_metrics: dict[str, float] = {}
        """Of the last step that was to be logged, each with its unit in the name."""

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """With the peak learning rate."""

    @abstractmethod
    def validation_metrics(self) -> dict[str, float]:
        """What metrics.jsonl shows of the last validation, each with its unit in the name."""

    @abstractmethod
    def warnings(self) -> list[str]:
        """What people should hear of after a validation."""

    def seed(self, step: int) -> None:
        """What a step draws follows from the step alone: a run that resumes draws what it would have drawn."""
        process = self.config.seed * self.trainer.world_size + self.global_rank
        torch.manual_seed(process * self.config.steps + step)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """A step with a broken gradient would ruin weights that the next checkpoint keeps."""
        if self.trainer.precision == "16-mixed":
            return  # its loss scaler meets such gradients as a matter of course, and skips them
        norms = torch.nn.utils.get_total_norm([w.grad for w in self.model.parameters() if w.grad is not None])
        if not norms.isfinite():
            step = self.global_step + 1
            raise NonFiniteLatentsError(
                f"training stopped at step {step}: the gradient must be finite; got norm {norms}; {REMEDY}"
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        config, optimizer = self.config, self.optimizer()

        def warm_up_and_cosine(step: int) -> float:
            warm_up = min((step + 1) / max(config.warmup_steps, 1), 1.0)
            return warm_up * 0.5 * (1 + math.cos(math.pi * min(step / config.steps, 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_and_cosine)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
