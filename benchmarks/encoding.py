"""Images per second of `depthq encode`: one process, and Ray Data's workers on this machine.

    python benchmarks/encoding.py          # 8,192 photos of 32 x 32, photos-small
    python benchmarks/encoding.py --smoke  # seconds: checks that everything runs

The plain loop reads, encodes and writes in this process, on all cores, as one worker does; several workers share them.
Of workers, the rate is that between the first shard done and the last one, each worker with one before that; their
start, which a long run does not feel, is told apart.
"""

import argparse
import io
import json
import tarfile
import tempfile
import time
from pathlib import Path

import torch
from measure import environment

from depthq.cli.model_and_data import BATCH_SIZE, model_folder
from depthq.codes.file import write_codes
from depthq.codes.shards import ShardFolder, ShardPlan
from depthq.data import ImageBatches, open_images
from depthq.encoding import ImagesToEncode, encode_batch, encode_shards
from depthq.models import DQAE
from depthq.pixels import image_grid
from depthq.runs import load_model

MODEL = "photos-small"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--shard-size", type=int, default=512)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--smoke", action="store_true", help="few images, one worker")
    args = parser.parse_args()
    if args.smoke:
        args.images, args.shard_size, args.workers = 192, 64, [1]
    model = load_model(model_folder(MODEL))
    with tempfile.TemporaryDirectory() as folder:
        source = write_tar(Path(folder) / "photos.tar", args.images)
        images = ImagesToEncode(str(source), "all", None, {"on_bad_image": "raise"}, BATCH_SIZE)
        facts = {"model": MODEL, "images": args.images, **environment("cpu")}
        plain = plain_loop(model, images, Path(folder) / "codes.parquet")
        print(json.dumps({"name": "plain loop", "images_per_second": round(plain, 1), **facts}))
        for workers in args.workers:
            out = Path(folder) / f"codes-{workers}"
            rate, start_s = of_workers(model, images, out, args.images, args.shard_size, workers)
            against = {"ratio_to_plain": round(rate / plain, 3), "start_s": round(start_s, 1)}
            print(json.dumps({"name": f"{workers} workers", "images_per_second": round(rate, 1), **against, **facts}))


def write_tar(path: Path, num_images: int) -> Path:
    """Crops of the bundled photos as PNG."""
    patches = open_images("bundled", "all")
    with tarfile.open(path, "w") as tar:
        for number in range(num_images):
            file = io.BytesIO()
            pixels = torch.from_numpy(patches[number % len(patches)])
            image_grid(pixels[None], columns=1).save(file, "PNG")
            info = tarfile.TarInfo(f"{number:08}.png")
            info.size = len(file.getvalue())
            tar.addfile(info, io.BytesIO(file.getvalue()))
    return path


def plain_loop(model: DQAE, to_encode: ImagesToEncode, out: Path) -> float:
    """Images per second, warmed up."""
    images = to_encode.open()
    for limit in (BATCH_SIZE, len(images)):
        start = time.perf_counter()
        batches = ImageBatches(images, batch_size=BATCH_SIZE, limit=limit)
        encoded = (encode_batch(model, batch, has_labels=False) for batch in batches)
        count = write_codes(out, encoded, model_fingerprint=model.fingerprint())
    return count / (time.perf_counter() - start)


def of_workers(
    model: DQAE, images: ImagesToEncode, out: Path, num_images: int, shard_size: int, workers: int
) -> tuple[float, float]:
    """Images per second once all workers are at it, and the seconds until the first shard was done."""
    plan = ShardPlan(model.fingerprint(), {}, num_images, shard_size)
    start, done = time.perf_counter(), []
    for shard in encode_shards(model, images, ShardFolder.of_plan(out, plan), workers=workers, address=None):
        done.append((time.perf_counter(), shard.num_images))
    counted = done[workers:]
    return sum(count for _, count in counted) / (done[-1][0] - done[workers - 1][0]), done[0][0] - start


if __name__ == "__main__":
    main()
