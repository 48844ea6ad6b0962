"""Lightning's loop in a folder: config.yaml, metrics.jsonl and checkpoints/, and a start again from the newest."""

import logging
import os
import re
import shutil
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.trainer.connectors import checkpoint_connector
from lightning.pytorch.utilities import rank_zero_only

from depthq.files import LOCK_NAME, is_leftover, remove_leftovers, replacing
from depthq.locking import only_writer
from depthq.memory import is_of_memory
from depthq.runs import RunFolder
from depthq.training.callbacks import ProgressBar, TrainingRows, ValidationRows
from depthq.training.checkpoints import AtomicCheckpointIO, Checkpoints, newest_checkpoint, step_of
from depthq.training.config import Hardware, LoopConfig
from depthq.training.loggers import make_loggers
from depthq.training.loop import LoopModule
from depthq.training.stopping import StopRequest


def fit(
    training: LoopModule,
    data: LightningDataModule,
    folder: Path,
    settings: dict[str, Any],
    *,
    hardware: Hardware | None = None,
    what_stays: Sequence[Callback] = (),
    progress: bool = True,
    save_start: bool = False,
) -> None:
    """Train in a folder, from its newest checkpoint if it has one, else from scratch; validate and save the last step.

    Args:
        training: What to train, and how.
        data: Batches from the step where the trainer stands.
        folder: Made if it does not exist; a new one is taken back if training fails before its first checkpoint.
        settings: What config.yaml is to say.
        hardware: Where to train.
        what_stays: Callbacks that write what a validation leaves behind.
        progress: Whether to show a progress bar.
        save_start: Whether a new run saves where it starts from, which its seed alone does not tell.

    Raises:
        ValueError: If the hardware is not there, another process trains in the folder, or its checkpoint is damaged.
        KeyboardInterrupt: If it is stopped by Ctrl-C or SIGTERM; the message says where it can go on from.
    """
    stop = StopRequest()
    rows = TrainingRows(training.config.log_every, lambda: training.step_metrics)
    callbacks = [  # in this order: a checkpoint comes behind all that its step leaves behind
        rows,
        *what_stays,
        ValidationRows(training.validation_metrics, training.warnings),
        _checkpoints(training.config, folder, stop, save_start),
        *([ProgressBar(lambda: rows.last)] if progress else []),
    ]
    with _without_lightning_advice(), _held(folder), _taken_back_if_it_fails(folder):
        trainer = _trainer(training.config, folder, hardware or Hardware(), callbacks)
        _write_config(settings, folder)
        with stop.listening():
            _fit(trainer, training, data, newest_checkpoint(RunFolder(folder).checkpoints))


def _held(folder: Path) -> AbstractContextManager[None]:
    """By the first process for all of its run."""
    return only_writer(folder) if rank_zero_only.rank == 0 else nullcontext()


def steps_done(run: Path) -> int:
    """How many steps the newest checkpoint of a run has behind it; 0 if there is none."""
    checkpoint = newest_checkpoint(RunFolder(run).checkpoints)
    return step_of(checkpoint) if checkpoint else 0


def check_has_steps_left(folder: Path, config: LoopConfig) -> None:
    """Raise ValueError if all steps are done."""
    if steps_done(folder) >= config.steps:
        raise ValueError(
            f"{folder} must have steps left to train; got all {config.steps} done; evaluate it, or start another run"
        )


def _fit(trainer: Trainer, training: LoopModule, data: LightningDataModule, checkpoint: Path | None) -> None:
    """Train to the last step, validate it, and only then save it."""
    (checkpoints,) = (each for each in trainer.callbacks if isinstance(each, Checkpoints))  # type: ignore[attr-defined]
    from_scratch = "delete it, and --resume starts from scratch"
    remedy = "begin another run with --start-from" if checkpoints.save_start else from_scratch
    with _errors_explained(trainer, checkpoint, remedy):
        trainer.fit(training, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if trainer.global_step % training.config.validate_every:
            trainer.validate(training, datamodule=data, verbose=False)
    checkpoints.save(trainer)


@contextmanager
def _errors_explained(trainer: Trainer, checkpoint: Path | None, remedy: str) -> Iterator[None]:
    """What Lightning raises of the network and of a damaged checkpoint, as one line; all else as it is."""
    try:
        yield
    except SystemExit as stop:  # Lightning's answer to Ctrl+C
        raise KeyboardInterrupt from stop
    except Exception as error:  # damage makes readers raise anything
        if isinstance(error, RuntimeError):
            _raise_if_of_network(error, trainer)
        if isinstance(error, PermissionError) or is_of_memory(error) or not _is_of_restoring(error):
            raise
        raise ValueError(
            f"{checkpoint} must be a whole checkpoint of this run; got one that is damaged or of another kind "
            f"({error!r}); {remedy}"
        ) from error


def _raise_if_of_network(error: RuntimeError, trainer: Trainer) -> None:
    first = (str(error).splitlines() or [""])[0][:200]
    if "address already in use" in str(error).lower():
        raise OSError(
            f"MASTER_PORT must be free; got {os.environ.get('MASTER_PORT')}, which is in use ({first}); name another"
        ) from error
    if trainer.world_size > 1 and re.search(r"gloo|nccl|connection|timed out|peer", str(error), re.IGNORECASE):
        raise OSError(
            f"all processes of a run must go on; another one has ended or hangs ({first}); see what it said, and "
            "go on with --resume"
        ) from error


def _is_of_restoring(error: Exception) -> bool:
    """Whether it was raised while Lightning read a checkpoint or restored what is in it."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    names = [frame.f_code.co_name for frame in frames if frame.f_globals["__name__"] == checkpoint_connector.__name__]
    return any(name == "resume_start" or "restore" in name for name in names)  # it also saves, and waits for others


@contextmanager
def _taken_back_if_it_fails(run: Path) -> Iterator[None]:
    """A new run that fails before its first checkpoint leaves nothing, which would only block the next try.

    Nothing of a folder that held anything before is deleted. A run that is interrupted stays.
    """
    is_new = not run.exists() or all(map(is_leftover, run.iterdir()))
    try:
        yield
    except Exception:
        if is_new and newest_checkpoint(RunFolder(run).checkpoints) is None and rank_zero_only.rank == 0:
            for path in run.iterdir():
                if path.name != LOCK_NAME:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


@rank_zero_only
def _write_config(settings: dict[str, Any], folder: Path) -> None:
    remove_leftovers(folder, but_in=RunFolder(folder).prior)  # which has a writer of its own
    with replacing(RunFolder(folder).config) as file:
        file.write(yaml.safe_dump(settings, sort_keys=False).encode())


def _checkpoints(config: LoopConfig, folder: Path, stop: StopRequest, save_start: bool) -> Checkpoints:
    path, every, validate_every = RunFolder(folder).checkpoints, config.checkpoint_every, config.validate_every
    return Checkpoints(path, every=every, validate_every=validate_every, stop=stop, save_start=save_start)


def _trainer(config: LoopConfig, folder: Path, hardware: Hardware, callbacks: list[Callback]) -> Trainer:
    loggers = make_loggers(folder, hardware.logger)  # what is wrong with the run's own files is no matter of hardware
    with _hardware_explained():
        return _new_trainer(config, folder, hardware, callbacks, loggers)


@contextmanager
def _hardware_explained() -> Iterator[None]:
    """What Lightning raises where it does not find the hardware, or a cluster's launcher half told, as one line."""
    try:
        yield
    except (MisconfigurationException, ModuleNotFoundError, RuntimeError, ValueError, TypeError, IndexError) as error:
        first = " ".join(str(error).split())
        slurm = sorted(name for name in os.environ if name.startswith("SLURM_NTASKS"))
        remedy = (
            f"start it with srun, or unset {', '.join(slurm)}"
            if slurm
            else "leave accelerator, devices and strategy out"
        )
        raise ValueError(f"hardware must fit this machine; got: {first}; {remedy}") from error


def _new_trainer(
    config: LoopConfig, folder: Path, hardware: Hardware, callbacks: list[Callback], loggers: list[Logger]
) -> Trainer:
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
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )


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
