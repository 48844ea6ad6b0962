"""A Lightning callback for anybody's module: are the codebooks in it alive?"""

import warnings
from collections.abc import Iterator

from lightning.pytorch import Callback, LightningModule, Trainer

from depthq.quantizers import CodebookHealth
from depthq.quantizers.base import Quantizer


class HealthCallback(Callback):
    """Logs how every quantizer of a module has been used of late, and warns once of each codebook that has collapsed.

    For each quantizer, by its name in the module: `NAME/usage` and `NAME/perplexity`, the lowest of its codebooks, and
    `NAME/redrawn`, the number of codes re-drawn in the last 100 steps.

    Args:
        every: Training steps between looks; they need the counts, no pass over data.

    Raises:
        ValueError: If `every` is below 1; at the start of training, if the module has no quantizer.
    """

    def __init__(self, every: int = 100):
        if every < 1:
            raise ValueError(f"every must be at least 1; got {every}")
        self.every = every
        self._told: set[tuple[str, int]] = set()
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not any(isinstance(module, Quantizer) for module in pl_module.modules()):
            raise ValueError("the module must have a quantizer of depthq; got none; leave HealthCallback out")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_) -> None:
        before, self._step = self._step, trainer.global_step
        if self._step == before or self._step % self.every:  # the same step: gradients are being accumulated
            return
        row: dict[str, float] = {}
        for name, health in _healths(pl_module):
            row[f"{name}/usage"] = health.usage.min().item()
            row[f"{name}/perplexity"] = health.perplexity.min().item()
            row[f"{name}/redrawn"] = float(health.redrawn.sum())
            for codebook in health.collapsed.nonzero().flatten().tolist():
                self._warn(name, codebook, health, trainer)
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)

    def _warn(self, name: str, codebook: int, health: CodebookHealth, trainer: Trainer) -> None:
        if (name, codebook) in self._told or not trainer.is_global_zero:
            return
        self._told.add((name, codebook))
        warnings.warn(
            f"codebook {codebook} of {name} has collapsed by step {trainer.global_step}: perplexity "
            f"{health.perplexity[codebook]:.1f} of {health.codebook_sizes[codebook]} codes; lower the decay, the "
            "learning rate or the commitment weight",
            stacklevel=2,
        )


def _healths(module: LightningModule) -> Iterator[tuple[str, CodebookHealth]]:
    for name, part in module.named_modules():
        if isinstance(part, Quantizer) and (health := part.health()) is not None:
            yield name or type(part).__name__, health
