"""A training run: a folder with config.yaml, metrics.jsonl, checkpoints/, model/ and reconstructions/."""

import itertools
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from depthq.data import DataError, ImageDataset, evaluation_loader, open_images, training_loader
from depthq.files import is_leftover, remove_leftovers, replacing
from depthq.measure import Measurement
from depthq.models import DQAE, DQAEConfig
from depthq.runs import RunFolder
from depthq.training.callbacks import (
    GRID_IMAGES,
    Grids,
    MetricsFile,
    ModelFolder,
    ProgressBar,
    TrainingRows,
    ValidationRows,
)
from depthq.training.checkpoints import AtomicCheckpointIO, Checkpoints, newest_checkpoint, step_of
from depthq.training.config import DataConfig, Hardware, RunConfig, TrainingConfig
from depthq.training.module import DQAETraining
from depthq.training.objectives import Objective, paper_objective


def train(
    config: RunConfig,
    run: Path,
    *,
    hardware: Hardware | None = None,
    start_from: DQAE | None = None,
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
        start_from: A model of the same configuration, whose weights and codebooks a new run starts from; by default
            they are drawn from the seed. The model itself stays as it is.
        objective: What to minimise. config.yaml does not hold it: a run that goes on must be given the same one.
        progress: Whether to show a progress bar.

    Returns:
        The metrics of the last validation.

    Raises:
        DataError: If the data cannot be used.
        NonFiniteLatentsError: If training diverges; the newest checkpoint is from before.
        ValueError: If there is nothing left to train, or `start_from` is of another configuration.
    """
    data = ImageBatches(config.data, config.training)  # opened first: a wrong source leaves no folder behind
    config = _fitted_to(config, data.train_images)
    checkpoint = newest_checkpoint(RunFolder(run).checkpoints)
    if steps_done(run) >= config.training.steps:
        raise ValueError(
            f"{run} must have steps left to train; got all {config.training.steps} done; evaluate it"
            ", or start another run"
        )
    seed_everything(config.training.seed, verbose=False)
    training = DQAETraining(_new_model(config.model, start_from), config.training, objective)
    with _without_lightning_advice():
        try:
            trainer = _trainer(training, RunFolder(run), hardware or Hardware(), data, progress)
        except MisconfigurationException as error:
            raise ValueError(f"hardware must fit this machine; got: {error}; leave it to auto") from error
        with _taken_back_if_it_fails(run):
            _write_config(config, run)
            _fit(trainer, training, data, checkpoint)
    assert training.last_measurement is not None
    return training.last_measurement


def steps_done(run: Path) -> int:
    """How many steps the newest checkpoint of a run has behind it; 0 if there is none."""
    checkpoint = newest_checkpoint(RunFolder(run).checkpoints)
    return step_of(checkpoint) if checkpoint else 0


def _new_model(config: DQAEConfig, start_from: DQAE | None) -> DQAE:
    model = DQAE(config)
    if start_from is not None:
        if start_from.config != config:
            raise ValueError(
                f"start_from must have the configuration of the run; got {start_from.config} for {config}; "
                "train it with the same model options"
            )
        model.load_state_dict(start_from.state_dict())
    return model


@contextmanager
def _taken_back_if_it_fails(run: Path) -> Iterator[None]:
    """A new run that fails before its first checkpoint leaves nothing, which would only block the next try.

    Nothing of a folder that held anything before is deleted. A run that is interrupted stays.
    """
    was_there = run.exists()
    is_new = not was_there or all(map(is_leftover, run.iterdir()))
    try:
        yield
    except Exception:
        if is_new and newest_checkpoint(RunFolder(run).checkpoints) is None and rank_zero_only.rank == 0:
            for path in run.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not was_there:
                run.rmdir()
        raise


@rank_zero_only
def _write_config(config: RunConfig, run: Path) -> None:
    remove_leftovers(run)
    with replacing(RunFolder(run).config) as file:
        file.write(yaml.safe_dump(config.to_flat_dict(), sort_keys=False).encode())


def _fit(trainer: Trainer, training: DQAETraining, data: "ImageBatches", checkpoint: Path | None) -> None:
    """Train to the last step, validate it, and only then save it."""
    try:
        trainer.fit(training, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if training.config.steps % training.config.validate_every:
            trainer.validate(training, datamodule=data, verbose=False)
    except SystemExit as stop:  # Lightning's answer to Ctrl+C
        raise KeyboardInterrupt from stop
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Checkpoints):
            callback.save(trainer)


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

    def grid_images(self) -> torch.Tensor:
        """The first test images, uint8 (B, C, S, S)."""
        loader = evaluation_loader(self.test_images, batch_size=GRID_IMAGES, limit=GRID_IMAGES)
        return next(itertools.chain(loader))


def _open(data: DataConfig, split: Literal["train", "test"]) -> ImageDataset:
    return open_images(data.data, split, image_size=data.image_size, on_bad_image=data.on_bad_image)


def _trainer(
    training: DQAETraining,
    run: RunFolder,
    hardware: Hardware,
    data: ImageBatches,
    progress: bool,
) -> Trainer:
    config = training.config
    return Trainer(
        accelerator=hardware.accelerator,
        devices=_devices(hardware),
        num_nodes=hardware.nodes,
        strategy=hardware.strategy,
        precision=default_precision(hardware.accelerator) if config.precision == "auto" else config.precision,
        max_steps=config.steps,
        val_check_interval=config.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=config.gradient_clip or None,
        logger=_loggers(run),
        callbacks=_callbacks(training, run, data, progress),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.path,
    )


def _callbacks(training: DQAETraining, run: RunFolder, data: ImageBatches, progress: bool) -> list[Callback]:
    """In this order: a checkpoint comes behind all that its step leaves behind."""
    config = training.config
    rows = TrainingRows(config.log_every, lambda: training.step_metrics)
    return [
        rows,
        ModelFolder(run.model, training.model.save_pretrained),
        Grids(run.reconstructions, data.grid_images(), training.model.reconstruct),
        ValidationRows(training.validation_metrics, training.warnings),
        Checkpoints(run.checkpoints, every=config.checkpoint_every, validate_every=config.validate_every),
        *([ProgressBar(lambda: rows.last)] if progress else []),
    ]


def _devices(hardware: Hardware) -> str | int:
    """Lightning reads "2" as the second device; people mean two."""
    if hardware.devices == "auto" and hardware.accelerator in ("auto", "cpu") and not torch.cuda.is_available():
        return 1
    return int(hardware.devices) if hardware.devices.isdigit() else hardware.devices


def default_precision(accelerator: str = "auto") -> Literal["bf16-mixed", "16-mixed", "32-true"]:
    """The precision that "auto" stands for: bfloat16 where this machine's hardware computes in it."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


def _loggers(run: RunFolder) -> list[Logger]:
    loggers: list[Logger] = [MetricsFile(run.metrics, first_step=steps_done(run.path))]
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(run.path, name="tensorboard", version=""))
    except ModuleNotFoundError:  # TensorBoard is an extra
        pass
    return loggers


@contextmanager
def _without_lightning_advice() -> Iterator[None]:
    """Advice that does not hold here: the loaders know where to resume, and workers are the user's choice."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*dataloader is not resumable.*",
            ".*smaller than the logging interval.*",
            ".*LeafSpec.*",  # Lightning's own use of PyTorch
        ):
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)  # importing Lightning sets its own level
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
