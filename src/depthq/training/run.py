"""A training run: a folder with config.yaml, metrics.jsonl, checkpoints/, model/ and reconstructions/."""

import copy
import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningDataModule, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from depthq.data import DataError, ImageDataset, evaluation_loader, open_images, training_loader, what_was_taken
from depthq.measure import Measurement
from depthq.models import DQAE, DQAEConfig
from depthq.progress import note
from depthq.quantizers import Quantizer
from depthq.runs import RunFolder, is_run, load_model, load_settings
from depthq.training.callbacks import GRID_IMAGES, Grids, ModelFolder, TrainingImages
from depthq.training.checkpoints import newest_checkpoint
from depthq.training.config import DataConfig, Hardware, RunConfig, TrainingConfig
from depthq.training.fitting import check_has_steps_left, fit
from depthq.training.module import DQAETraining
from depthq.training.notes import run_notes
from depthq.training.objectives import Objective, paper_objective


def train(
    config: RunConfig,
    run: Path,
    *,
    hardware: Hardware | None = None,
    start_from: DQAE | Path | None = None,
    objective: Objective = paper_objective,
    progress: bool = True,
) -> Measurement:
    """Train in the folder `run`, from its newest checkpoint if it has one, else from scratch.

    A run that was killed at any moment and is started again goes on to the same weights, on a CPU bit for bit, as one
    that was not killed: data order, crops and flips follow from the seed and the step alone.

    Args:
        config: What to learn.
        run: The run's folder; made if it does not exist.
        hardware: Where to train.
        start_from: A model, or its folder, whose weights a new run starts from, as far as their shapes are the same
            (another likelihood, say, has its own head), and whose quantizers, each as a whole or not at all. Levels are
            counted from the finest. What is not taken over is drawn from the seed. The model itself stays as it is;
            config.yaml tells which it was, by its folder or its fingerprint.
        objective: What to minimise. config.yaml does not hold it: a run that goes on must be given the same one.
        progress: Whether to show a progress bar.

    Returns:
        The metrics of the last validation.

    Raises:
        DataError: If the data cannot be used.
        NonFiniteLatentsError: If training diverges; the newest checkpoint is from before.
        ValueError: If there is nothing left to train, `start_from` shares nothing with the model, the run began with
            another's weights and has no checkpoint to go on from, or another process trains in the folder.
        KeyboardInterrupt: If it is stopped by Ctrl-C or SIGTERM, behind its next whole step, which it has saved then.
    """
    data = ImageBatches(config.data, config.training)  # opened first: a wrong source leaves no folder behind
    if progress and rank_zero_only.rank == 0:
        note(what_was_taken("train", data.train_images))
        note(what_was_taken("test", data.test_images))
    config = _fitted_to(config, data.train_images)
    check_has_steps_left(run, config.training)
    seed_everything(config.training.seed, verbose=False)
    origin = _origin(run, start_from)
    training = DQAETraining(_new_model(config.model, start_from), config.training, objective)
    what_stays = [
        TrainingImages(RunFolder(run).training_images, data.train_images.names),
        ModelFolder(RunFolder(run).model, lambda folder: _save(folder, config, training, **origin)),
        Grids(RunFolder(run).reconstructions, data.grid_images(), training.model.reconstruct),
    ]
    fit(
        training,
        data,
        run,
        config.to_flat_dict() | origin,
        hardware=hardware,
        what_stays=what_stays,
        progress=progress,
        save_start=bool(origin),
    )
    assert training.last_measurement is not None
    return training.last_measurement


def _save(folder: Path, config: RunConfig, training: DQAETraining, started_from: str | None = None) -> None:
    notes = run_notes(config, training.global_step, training.last_measurement, started_from)
    training.model.save_pretrained(folder, notes)


def _origin(run: Path, start_from: DQAE | Path | None) -> dict[str, str]:
    """What config.yaml says of the model that the run begins with, or has begun with: nothing, if there is none."""
    before = load_settings(RunFolder(run).config) if is_run(run) else {}
    known = {"started_from": before["started_from"]} if "started_from" in before else {}
    if newest_checkpoint(RunFolder(run).checkpoints) is not None:
        return known
    if isinstance(start_from, DQAE):
        return {"started_from": start_from.fingerprint()}
    if start_from is not None:
        return {"started_from": str(start_from.absolute())}
    if known:
        raise ValueError(
            f"{run} must hold a checkpoint to go on from, as it began with the weights of {known['started_from']}; got "
            "none; begin another run with --start-from"
        )
    return {}


def _new_model(config: DQAEConfig, start_from: DQAE | Path | None) -> DQAE:
    model = DQAE(config)
    if start_from is None:
        return model
    start_from = start_from if isinstance(start_from, DQAE) else load_model(start_from)
    ours, shared = model.state_dict(), _shared(model, start_from)
    if not any(name in shared for name, _ in model.named_parameters()):
        theirs = asdict(start_from.config)
        differing = [f"{name}={theirs[name]!r}" for name, value in asdict(config).items() if value != theirs[name]]
        raise ValueError(
            "start_from must share weights with the model to train; got none of the same name and shape; "
            f"give that model's {', '.join(differing)}, or the ones of these that set the shapes"
        )
    model.load_state_dict({**ours, **shared})
    if left := [name for name in ours if name not in shared]:
        parts = ", ".join(sorted({name.rpartition(".")[0] for name in left}))
        note(f"starts from {len(ours) - len(left)} of {len(ours)} tensors; drawn from the seed: {parts}")
    return model


def _shared(model: DQAE, other: DQAE) -> dict[str, Tensor]:
    """What of another model's state `model` can take, by the names that it has there.

    Levels are counted from the fine end. A quantizer is taken whole or not at all: statistics mean nothing beside
    codewords that are not theirs.
    """
    ours, quantizers = model.state_dict(), {}
    theirs = {name: tensor for name, tensor in other.state_dict().items() if not name.startswith("levels.")}
    for index, level in zip(reversed(range(len(model.levels))), reversed(other.levels), strict=False):
        for name, part in level.named_children():
            state = part.state_dict(prefix=f"levels.{index}.{name}.")
            if not isinstance(part, Quantizer):
                theirs |= state
            elif _fits(part, model.levels[index].quantizer):
                quantizers |= state
    fitting = {name: each for name, each in theirs.items() if name in ours and each.shape == ours[name].shape}
    return quantizers | fitting


def _fits(theirs: Quantizer, ours: Quantizer) -> bool:
    """Whether one quantizer's state is one that the other could have."""
    if type(theirs) is not type(ours):
        return False
    try:
        copy.deepcopy(ours).load_state_dict(theirs.state_dict())
    except RuntimeError:
        return False
    return True


def _fitted_to(config: RunConfig, images: ImageDataset) -> RunConfig:
    """The configuration with what the images decide; raises DataError where the model cannot take them."""
    if config.data.image_channels not in (None, images.num_channels):
        raise DataError(
            f"images in {config.data.data} must have {config.data.image_channels} channels, as image_channels says; "
            f"got {images.num_channels}; convert them, or leave image_channels out"
        )
    if images.image_size % config.model.image_multiple:
        raise DataError(
            f"images in {config.data.data} must have a side that is a multiple of {config.model.image_multiple}, the "
            f"stride of the coarsest level; got {images.image_size}; pass an image_size that is one"
        )
    data = replace(config.data, image_size=images.image_size, image_channels=images.num_channels)
    return replace(config, data=data, model=replace(config.model, image_channels=images.num_channels))


class ImageBatches(LightningDataModule):
    """Training batches from the step where the run stands, and the first test images for validation."""

    def __init__(self, data: DataConfig, training: TrainingConfig):
        super().__init__()
        self.config = training
        self.train_images = _open(data, "train")
        self.test_images = _open(data, "test")

    def train_dataloader(self):
        assert self.trainer is not None
        return training_loader(
            self.train_images,
            batch_size=self.config.batch_size,
            num_steps=self.config.steps,
            seed=self.config.seed,
            first_step=self.trainer.global_step,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            flip=self.config.flip,
            num_workers=self.config.num_workers,
        )

    def val_dataloader(self):
        batch_size, limit = self.config.batch_size, self.config.validation_images
        return evaluation_loader(self.test_images, batch_size=batch_size, limit=limit)

    def grid_images(self) -> Tensor:
        """The first test images, uint8 (B, C, S, S)."""
        loader = evaluation_loader(self.test_images, batch_size=GRID_IMAGES)
        images = next(itertools.chain(loader), None)  # of the first batch that has a good one
        if images is None:
            raise DataError("images must hold at least one to test on; got none; check the source")
        return images


def _open(data: DataConfig, split: Literal["train", "test"]) -> ImageDataset:
    return open_images(
        data.data,
        split,
        image_size=data.image_size,
        on_bad_image=data.on_bad_image,
        background=data.background,
        image_column=data.image_column,
    )
