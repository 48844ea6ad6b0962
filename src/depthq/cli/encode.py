"""Turn images into codes, one row per image: a file, or a folder of shards on many processes and machines.

examples:
  depthq encode runs/demo --data bundled --out codes.parquet
  depthq encode runs/photos --data my-photos/ --split train --out codes.parquet
  depthq encode runs/photos --data shards/ --workers 8 --out codes/
  depthq encode runs/photos --data s3://bucket/shards --ray auto --out /shared/codes/

Takes all images of the data, those for training and those for testing together, unless --split names a part: image
files in the order of their paths, rows as they come; whole and of any size, unless --crop says otherwise. Beside its
codes each image keeps its id (path in the folder, or row), its height and width, and its label where the data has a
column of that name. What the first images take as codes stands beside what they take as PNG, and as JPEG of equal PSNR.

With --workers or --ray, Ray Data runs a pool of processes, each with the model, and --out is a folder with a file for
every --shard-size images: the same rows in the same order. A run that was stopped or killed leaves the shards that it
has done; the same command does the others. All verbs that read codes take the folder.
"""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from depthq.cli.compared import Compared
from depthq.cli.model_and_data import (
    BATCH_SIZE,
    ModelAndData,
    add_model_and_data,
    batches_of,
    check_model_takes,
    count_all_images,
    images_of,
    model_and_data,
    open_model_and_images,
)
from depthq.cli.paths import user_path
from depthq.codes import CodesBatch
from depthq.files import check_is_new, remove_leftovers
from depthq.models import DQAE
from depthq.runs import load_model, load_prior

if TYPE_CHECKING:
    from depthq.codes.shards import ShardFolder
    from depthq.data import ImageBatch

IMAGES_PER_SHARD = 4096
_NUM_NAMED = 3


@dataclass(frozen=True)
class Settings:
    source: ModelAndData
    limit: int | None
    out: Path
    workers: int | None
    ray: str | None
    shard_size: int


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model_and_data(parser, split="all", labels=True)
    parser.add_argument("--limit", type=PositiveInt, help="only the first so many images")
    parser.add_argument(
        "--out", type=user_path, required=True, help="the parquet file to write, or the folder of shards"
    )
    parser.add_argument("--workers", type=PositiveInt, help="processes, each with its share of the cores, or a GPU")
    parser.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster: HOST:PORT, or auto for this machine's own")
    parser.add_argument(
        "--shard_size",
        type=PositiveInt,
        help=f"images per shard, in steps of {BATCH_SIZE}; by default {IMAGES_PER_SHARD}",
    )
    options = parser.parse_args(arguments)
    in_shards, shard_size = bool(options.workers or options.ray), options.shard_size or IMAGES_PER_SHARD
    if options.shard_size and not in_shards:
        raise ValueError("--shard-size must come with --workers or --ray, which write shards; add one, or leave it out")
    if shard_size % BATCH_SIZE:
        raise ValueError(
            f"--shard-size must be a multiple of {BATCH_SIZE}, the size of a batch; got {shard_size}; take "
            f"{math.ceil(shard_size / BATCH_SIZE) * BATCH_SIZE}"
        )
    if in_shards and options.out.suffix == ".parquet":
        raise ValueError(f"--out must be a folder with --workers or --ray; got {options.out}; take {options.out.stem}/")
    return Settings(model_and_data(options), options.limit, options.out, options.workers, options.ray, shard_size)


def run(settings: Settings) -> None:
    if settings.workers or settings.ray:
        _encode_shards(settings)
    else:
        _encode_file(settings)


def _encode_file(settings: Settings) -> None:
    from depthq.codes.file import write_codes

    check_is_new(settings.out)
    model, images = open_model_and_images(settings.source)
    label_type, compared = images.label_type, Compared(model, load_prior(settings.source.model))
    num_images = count_all_images(settings.source)  # while nothing is written: it may be an error
    batches = _encoded(
        model, batches_of(images, settings.source, limit=settings.limit), label_type is not None, compared
    )
    count = write_codes(settings.out, batches, model_fingerprint=model.fingerprint(), label_type=label_type)
    on_disk = settings.out.stat().st_size * 8 / count
    skipped = f", {images.num_skipped} bad ones skipped" if images.num_skipped else ""
    print(
        f"{settings.out}: codes of {count} of {num_images} images "
        f"(--split {settings.source.split}{skipped}); {on_disk:.0f} bits per image on disk"
    )
    print(compared.sentence())


def _encoded(
    model: DQAE, batches: "Iterable[ImageBatch]", has_labels: bool, compared: Compared
) -> Iterator[CodesBatch]:
    from depthq.encoding import encode_batch

    for batch in batches:
        encoded = encode_batch(model, batch, has_labels=has_labels)
        compared.update(batch.images, encoded.codes)
        yield encoded


def _encode_shards(settings: Settings) -> None:
    from depthq.codes.shards import ShardFolder, ShardPlan
    from depthq.data import what_was_taken
    from depthq.encoding import encode_shards
    from depthq.locking import only_writer
    from depthq.progress import note, of_a_pass, progress_bar

    model, out = load_model(settings.source.model).to(settings.source.device), settings.out.absolute()
    to_encode = images_of(settings.source, model)
    images = to_encode.open()
    check_model_takes(model, images, to_encode.source, to_encode.crop)
    note(what_was_taken(settings.source.split, images))
    source = asdict(to_encode)
    source |= source.pop("reading")
    del source["on_bad_image"]  # shards that are done have the same rows either way
    del source["num_channels"]  # the model's
    to_take = min(len(images), settings.limit or len(images))
    plan = ShardPlan(model.fingerprint(), source, to_take, settings.shard_size)
    num_images = len(images) if settings.source.split == "all" else count_all_images(settings.source)
    with only_writer(out):
        folder = ShardFolder.of_plan(out, plan)
        remove_leftovers(out)
        missing, before, start = folder.missing(), folder.num_images, time.monotonic()
        if len(missing) < plan.num_shards:
            note(f"{out}: {plan.num_shards - len(missing)} of {plan.num_shards} shards are there already")
        total = sum(len(plan.images_of(shard)) for shard in missing)
        encoded = encode_shards(model, to_encode, folder, workers=settings.workers, address=settings.ray)
        try:
            with progress_bar(total=total, **of_a_pass("image")) as bar, closing(encoded):
                for done in encoded:
                    bar.update(len(plan.images_of(done.shard)))
        except KeyboardInterrupt as interrupt:
            done = plan.num_shards - len(folder.missing())
            raise KeyboardInterrupt(
                f"; {done} of {plan.num_shards} shards are in {out}; the same command does the others"
            ) from interrupt
        finally:
            remove_leftovers(out)
    encoded_now = folder.num_images - before
    speed = f"; {encoded_now / (time.monotonic() - start):.0f} images/s, the start of workers included"
    _print_shards(settings, folder, num_images, speed if encoded_now else "")


def _print_shards(settings: Settings, folder: "ShardFolder", num_images: int, speed: str) -> None:
    count, skipped = folder.num_images, folder.skipped
    named = ", ".join(skipped[:_NUM_NAMED]) + (", ..." if len(skipped) > _NUM_NAMED else "")
    bad = f", {len(skipped)} bad ones skipped: {named}" if skipped else ""
    if not count:
        raise ValueError(f"images must hold at least one that can be used; got none{bad}; check the source")
    bits = 8 * sum(file.stat().st_size for file in folder.files())
    print(
        f"{settings.out}: codes of {count} of {num_images} images "
        f"(--split {settings.source.split}{bad}) in {folder.plan.num_shards} shards; "
        f"{bits / max(1, count):.0f} bits per image on disk{speed}"
    )
