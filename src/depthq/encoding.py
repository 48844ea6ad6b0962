"""Images -> their codes: a batch, or a folder of shards on as many processes and machines as there are.

Ray Data holds a pool of actors, each with the model on its own GPU or cores; hands them shards; begins a shard again
whose actor died. Which images are whose is decided by `codes.shards` alone, and images are read by `data`, as
everywhere else: so shards hold, row for row, what one process would have written.
"""

import logging
import os
import socket
import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from depthq.codes import CodesBatch
from depthq.codes.shards import Done, ShardFolder
from depthq.data import ImageBatch, ImageBatches, ImageDataset, open_images, open_whole_images
from depthq.data.opening import ReadingOptions
from depthq.data.split import Split
from depthq.extras import explain_missing
from depthq.models import DQAE
from depthq.pixels import pad_to_multiple

_SECONDS_TO_CONNECT = 3
# Else Ray warns of what will once be so, and logs advice to those who use its actors themselves.
_QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@dataclass(frozen=True)
class ImagesToEncode:
    """Which images, and how they are read: all that a worker needs to find them again."""

    source: str
    """As `depthq.data.open_images` takes it; every machine must find the same there."""
    split: Split
    crop: int | None
    """Side of centre crops; None: whole images."""
    reading: ReadingOptions
    batch_size: int
    num_channels: int = 1
    """Of the model, which takes gray images as colour ones, too."""

    def open(self) -> ImageDataset:
        """The images, none of them read yet; raises DataError as `open_images`."""
        if self.crop is None:
            return open_whole_images(
                self.source, self.split, num_channels=self.num_channels, hold=False, **self.reading
            )
        return open_images(
            self.source, self.split, image_size=self.crop, num_channels=self.num_channels, hold=False, **self.reading
        )


def encode_batch(model: DQAE, batch: ImageBatch, *, has_labels: bool) -> CodesBatch:
    """Codes of images, and what is known of each; on the CPU, wherever the model is.

    Args:
        model: Of as many channels as the images have.
        batch: Images of any one size.
        has_labels: Whether their source has labels.
    """
    codes = model.encode(pad_to_multiple(batch.images.to(model.device), model.config.image_multiple))
    ids = [origin.id for origin in batch.origins]
    labels = [origin.label for origin in batch.origins] if has_labels else None
    sizes = [(batch.images.shape[2], batch.images.shape[3])] * len(batch)
    return CodesBatch(codes.to("cpu"), ids, labels, sizes)


def encode_shards(
    model: DQAE, images: ImagesToEncode, folder: ShardFolder, *, workers: int | None, address: str | None
) -> Generator[Done, None, None]:
    """Encode the missing shards of a folder, and mark each that is done.

    Args:
        model: On the device that is meant: workers take a GPU each, or cores.
        images: What the folder's plan was made of.
        folder: Where to write; on a cluster all machines must see it under the same path.
        workers: Processes, at least 1; None: as many as the cluster has GPUs, or cores.
        address: Of a Ray cluster, HOST:PORT, or "auto" for the one that this machine belongs to; None: this machine.

    Yields:
        What became of each shard, as they get done.

    Raises:
        ValueError: If there is no such cluster, it has too few cores or GPUs, workers do not find what they need, or a
            shard fails; the others stay.
    """
    missing = folder.missing()
    if not missing:
        return
    with _connected(address, workers) as ray:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        folder.begin()
        pool = _pool(ray, model.device.type, workers, address)
        shards = ray.data.from_items([{"shard": shard} for shard in missing], override_num_blocks=len(missing))
        done = shards.map_batches(
            _Worker,
            fn_constructor_args=(ray.put(model.cpu()), images, folder, pool.pop("threads")),
            batch_size=1,
            **pool,
        )
        for row in _told_by_ray(ray, done.iter_rows()):
            if row["error"]:
                raise ValueError(
                    f"shard {row['shard']} of {folder.path} must be encoded; got: {row['error']}; what is done stays: "
                    "mend it and run the same command again"
                )
            outcome = Done(row["shard"], row["num_images"], tuple(row["skipped"]))
            folder.mark(outcome)
            yield outcome


def _told_by_ray(ray: Any, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows; what Ray raises where workers cannot work as one line of ours."""
    try:
        yield from rows
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(
            f"workers must all start and find depthq, model and data; got: {lines[-1]}; see that every machine has "
            "them under the same paths, and run the same command again"
        ) from error


class _Worker:
    """An actor: encodes one shard after the other."""

    def __init__(self, model: Any, images: ImagesToEncode, folder: ShardFolder, threads: int):
        import ray

        torch.set_num_threads(threads)
        on_gpu = bool(ray.get_gpu_ids())
        self.model: DQAE = ray.get(model)
        self.model.to("cuda" if on_gpu else "cpu")
        self.job, self.folder = images, folder
        self.images = images.open()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        shard = int(batch["shard"][0])
        try:
            num_images, skipped, error = *self._encode(shard), ""
        except (ValueError, OSError, MemoryError) as failure:  # as a row: raised, it would bring Ray's own traceback
            num_images, skipped, error = 0, [], str(failure) or type(failure).__name__
        return {"shard": [shard], "num_images": [num_images], "skipped": [skipped], "error": [error]}

    def _encode(self, shard: int) -> tuple[int, list[str]]:
        from depthq.codes.file import write_codes

        numbers, images = self.folder.plan.images_of(shard), self.images
        images.forget_skipped()
        batches = ImageBatches(
            images, batch_size=self.job.batch_size, crop=self.job.crop, first=numbers.start, limit=len(numbers)
        )
        has_labels = images.label_type is not None
        encoded = (encode_batch(self.model, batch, has_labels=has_labels) for batch in batches)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bad images: they are named in what is returned
            first = next(encoded, None)
            if first is None:
                return 0, images.names_of_skipped()
            count = write_codes(
                self.folder.file(shard),
                chain([first], encoded),
                model_fingerprint=self.folder.plan.model_fingerprint,
                label_type=images.label_type,
            )
        return count, images.names_of_skipped()


def _pool(ray: Any, device: str, workers: int | None, address: str | None) -> dict[str, Any]:
    """How many actors there are, what each has, and on how many threads it computes."""
    resources = ray.cluster_resources()
    cores, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    if device == "cuda":
        count = workers or gpus
        if not 0 < count <= gpus:
            raise ValueError(f"--workers must have a GPU each with --device cuda; got {count} workers and {gpus} GPUs")
        threads, needs = max(1, cores // count), {"num_gpus": 1}
    else:
        count = workers or cores
        threads = max(1, cores // count) if address is None else 1
        if address is not None and count > cores:
            raise ValueError(f"--workers must have a core each; got {count} workers and {cores} cores in the cluster")
        needs = {"num_cpus": threads}
    return {"threads": threads, "compute": ray.data.ActorPoolStrategy(size=count), **needs}


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray, quiet: its own, or a cluster's."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with explain_missing():
        import ray
        import ray.data
        import ray.exceptions

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if address is None:
            cores = max(os.cpu_count() or 1, workers or 1)
            with _muted():
                ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        else:
            _check_reachable(address)
            with _muted():
                ray.init(address=address, **quiet)
    except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"--ray must be the address of a Ray cluster; got {address or 'none'} ({first_line}); start one with "
            "ray start --head, leave --ray out, or, if that cluster asks for a token, set RAY_AUTH_MODE=token and put "
            "it into ~/.ray/auth_token"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _muted() -> Iterator[None]:
    """Nothing on the standard error of this process, whatever writes there: Ray tells of its log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _check_reachable(address: str) -> None:
    """Raise OSError at once, where Ray would try for a minute."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "//" not in address:
        socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()
