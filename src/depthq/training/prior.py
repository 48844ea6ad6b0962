"""Training of a prior over the codes of a run's model, in RUN/prior."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from depthq.codes import Codes
from depthq.data import code_evaluation_loader, code_training_loader
from depthq.priors import CodePrior, CountedPrior, TransformerPrior, grids_of, uniform_nll_nats
from depthq.quantizers import NonFiniteLatentsError
from depthq.training.callbacks import save_model
from depthq.training.config import Hardware, PriorConfig, PriorTrainingConfig
from depthq.training.fitting import check_has_steps_left, fit
from depthq.training.loop import LoopModule
from depthq.units import nats_to_bits

_LARGEST_SHARE = 0.1
"""Of the images at most so many are held out, but one at least."""
_BETA2 = 0.99


@dataclass(frozen=True)
class PriorOutcome:
    """What the codes of held-out images cost."""

    held_out_images: int
    """Images that no prior here has seen."""
    uniform_bits_per_image: float
    """If all codes are alike."""
    counted_bits_per_image: float
    """By how often each code occurs."""
    counted_given_left_bits_per_image: float
    """By how often each code occurs beside its left neighbour."""
    prior_bits_per_image: float
    """By the prior that was trained, as it was at its best validation."""
    best_step: int
    """The step of that validation."""
    steps: int
    """How many were trained."""


def train_prior(
    codes: Codes,
    folder: Path,
    *,
    prior: PriorConfig,
    training: PriorTrainingConfig,
    hardware: Hardware | None = None,
    progress: bool = True,
) -> PriorOutcome:
    """Train a prior on codes in a folder, from its newest checkpoint if it has one, else from scratch.

    Some of the images, drawn by the seed, are held out: `training.validation_images`, at most a tenth, one at least.
    The folder holds the prior as it was when these cost least (`CodePrior.from_pretrained(folder)`). As with `train`,
    a run that was killed goes on to the same weights; one that has stopped early is trained no more.

    Args:
        codes: Of all images to learn from, maps of one size.
        folder: Made if it does not exist.
        prior: What the prior is made of.
        training: How it is trained.
        hardware: Where.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If there is nothing left to train, there are fewer than two images, or an option does not fit.
    """
    check_has_steps_left(folder, training)
    seed_everything(training.seed, verbose=False)
    learned, held_out = _split(codes, training)
    model = TransformerPrior(codes.codebook_sizes, grids_of(codes), **asdict(prior))
    module = PriorTraining(model, training)
    fit(
        module,
        CodeBatches(learned, held_out, training),
        folder,
        asdict(prior) | asdict(training),
        hardware=hardware,
        what_stays=[BestPrior(folder, module)],
        progress=progress,
    )
    return _outcome(folder, learned, held_out, module)


class PriorTraining(LoopModule):
    """Trains and validates a prior: the cost of a code, nats.

    Args:
        model: The prior.
        config: How.
    """

    model: TransformerPrior
    config: PriorTrainingConfig

    def __init__(self, model: TransformerPrior, config: PriorTrainingConfig):
        super().__init__(model, config)
        self.num_codes = sum(
            len(sizes) * math.prod(grid) for sizes, grid in zip(model.codebook_sizes, model.grids, strict=True)
        )
        self.best, self.best_step, self.validations_since = math.inf, 0, 0
        self.costs: list[Tensor] = []

    def training_step(self, levels: Sequence[Tensor], _batch_index: int) -> Tensor:
        step = self.global_step + 1
        self.seed(step)
        nats_per_code = self.model(self._codes(levels)).sum(1).mean() / self.num_codes
        if not nats_per_code.isfinite():
            raise NonFiniteLatentsError(
                f"training stopped at step {step}: the loss must be finite; got {nats_per_code}; lower the learning "
                "rate or lengthen the warm-up"
            )
        if step % self.config.log_every == 0:
            self.step_metrics = {"bits_per_code": nats_to_bits(nats_per_code.item())}
        return nats_per_code

    def on_validation_epoch_start(self) -> None:
        self.costs = []

    def validation_step(self, levels: Sequence[Tensor], _batch_index: int) -> None:
        with torch.autocast(self.device.type, enabled=False):
            self.costs.append(self.model.nll_nats(self._codes(levels)))

    def on_validation_epoch_end(self) -> None:
        self.last = nats_to_bits(torch.cat(self.costs).mean().item()) / self.num_codes
        if self.last < self.best:
            self.best, self.best_step, self.validations_since = self.last, self.global_step, 0
        else:
            self.validations_since += 1
        self._stop_early()

    def validation_metrics(self) -> dict[str, float]:
        return {"validation_bits_per_code": self.last}

    def warnings(self) -> list[str]:
        if not self.validations_since:
            return []
        return [f"held-out images cost more than at step {self.best_step}: the prior begins to know images by heart"]

    def optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, betas=(0.9, _BETA2), weight_decay=config.weight_decay
        )

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["best"] = (self.best, self.best_step, self.validations_since)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.best, self.best_step, self.validations_since = checkpoint["best"]
        self._stop_early()  # as it had, if it had

    def _stop_early(self) -> None:
        if self.validations_since >= self.config.patience:
            self.trainer.should_stop = True

    def _codes(self, levels: Sequence[Tensor]) -> Codes:
        return Codes.unchecked(tuple(levels), self.model.codebook_sizes)


class BestPrior(Callback):
    """Keeps the prior as it was at the validation that it did best in."""

    def __init__(self, folder: Path, training: PriorTraining):
        self.folder = folder
        self.training = training

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, *_) -> None:
        if self.training.best_step == trainer.global_step:
            save_model(self.training.model.save_pretrained, self.folder)


class CodeBatches(LightningDataModule):
    """Training batches from the step where the run stands, and the held-out images for validation."""

    def __init__(self, learned: Codes, held_out: Codes, config: PriorTrainingConfig):
        super().__init__()
        self.learned, self.held_out, self.config = learned, held_out, config

    def train_dataloader(self):
        assert self.trainer is not None
        return code_training_loader(
            self.learned,
            batch_size=self.config.batch_size,
            num_steps=self.config.steps,
            seed=self.config.seed,
            first_step=self.trainer.global_step,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )

    def val_dataloader(self):
        return code_evaluation_loader(self.held_out, batch_size=self.config.batch_size)


def _split(codes: Codes, config: PriorTrainingConfig) -> tuple[Codes, Codes]:
    """Images to learn from, and those held out."""
    num_held_out = min(config.validation_images, int(_LARGEST_SHARE * len(codes)) or 1)
    if len(codes) <= num_held_out:
        raise ValueError(f"codes must be of at least 2 images, one to learn from and one to hold out; got {len(codes)}")
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(config.seed), device="cpu")
    parts = (order[num_held_out:].sort().values, order[:num_held_out].sort().values)
    learned, held_out = (Codes(tuple(level[part] for level in codes.levels), codes.codebook_sizes) for part in parts)
    return learned, held_out


def _outcome(folder: Path, learned: Codes, held_out: Codes, training: PriorTraining) -> PriorOutcome:
    def bits_per_image(nll_nats: Callable[[Codes], Tensor]) -> float:
        parts = [nll_nats(held_out[first : first + 64]) for first in range(0, len(held_out), 64)]
        return nats_to_bits(torch.cat(parts).mean().item())

    with torch.no_grad():
        return PriorOutcome(
            held_out_images=len(held_out),
            uniform_bits_per_image=bits_per_image(uniform_nll_nats),
            counted_bits_per_image=bits_per_image(CountedPrior.from_codes([learned]).nll_nats),
            counted_given_left_bits_per_image=bits_per_image(CountedPrior.from_codes([learned], True).nll_nats),
            prior_bits_per_image=bits_per_image(CodePrior.from_pretrained(folder).nll_nats),
            best_step=training.best_step,
            steps=training.global_step,
        )
