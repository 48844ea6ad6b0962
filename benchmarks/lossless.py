"""Lossless files: an archive of depthq beside PNG, WebP and JPEG XL, in bits/dim of the files' own bytes and MB/s.

    python benchmarks/lossless.py                                            # the shipped model on bundled photos
    python benchmarks/lossless.py runs/cifar --data cifar10/ --limit 2000    # codecs: a file each, and one mosaic
    python benchmarks/lossless.py runs/cifar --data cifar10/ --ours-only     # all test images
    python benchmarks/lossless.py runs/tiny --data photos/ --limit 4 --effort 1

Images are the centre crops of the data's test split. All work on as many threads as PyTorch is told to take
(OMP_NUM_THREADS). MB are a million sub-pixels. Each file is decoded and compared.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator

import torch
from image_files import mosaic, read, weights_bits, write
from measure import environment
from torch import Tensor

from depthq.cli.model_and_data import MODEL_HELP, model_folder
from depthq.coding import Archive
from depthq.data import evaluation_loader, open_images
from depthq.runs import load_model, load_prior


def main() -> None:
    args = parse_arguments()
    images = torch.cat(list(evaluation_loader(open_images(args.data, "test"), batch_size=64, limit=args.limit)))
    model, prior = load_model(args.run), load_prior(args.run)
    archive = Archive(model, prior)
    rows = [
        measured("depthq, one archive", images, [images], lambda x: write_ours(archive, x), lambda d: ours(archive, d))
    ]
    if not args.ours_only:
        rows += list(rivals(images, args.effort))
    for row in rows:
        print(json.dumps({**row, "images": len(images), **environment()}))
    print(f"depthq's weights, as float32, are {weights_bits(model, prior) / images.numel():.4f} bits/dim more")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=model_folder, nargs="?", default="cifar10-lossless", help=MODEL_HELP)
    parser.add_argument("--data", default="bundled", help="as for depthq train")
    parser.add_argument("--limit", type=int, help="only the first so many images")
    parser.add_argument("--effort", type=int, default=9, help="of JPEG XL")
    parser.add_argument("--ours-only", action="store_true", help="without the codecs")
    return parser.parse_args()


def rivals(images: Tensor, effort: int) -> Iterator[dict]:
    import pillow_jxl  # noqa: F401  registers the format

    formats = {
        "PNG": {"format": "PNG", "optimize": True},
        "WebP": {"format": "WEBP", "lossless": True, "quality": 100, "method": 6},
        f"JPEG XL, effort {effort}": {"format": "JXL", "lossless": True, "effort": effort},
    }
    for name, options in formats.items():
        for arrangement, pieces in (("a file each", list(images[:, None])), ("one mosaic", [mosaic(images)[None]])):
            yield measured(f"{name}, {arrangement}", images, pieces, lambda x, o=options: write(x[0], o), read)


def measured(
    name: str,
    images: Tensor,
    pieces: list[Tensor],
    write: Callable[[Tensor], bytes],
    read: Callable[[bytes], Tensor],
) -> dict:
    """Bits/dim and speeds of files of `pieces`, which together are the images; each is decoded and compared."""
    start = time.perf_counter()
    files = [write(piece) for piece in pieces]
    written = time.perf_counter()
    decoded = [read(file) for file in files]
    seconds = time.perf_counter() - written
    assert all(torch.equal(piece, back) for piece, back in zip(pieces, decoded, strict=True)), name
    million = images.numel() / 1e6
    return {
        "name": name,
        "bits_per_dim": 8 * sum(map(len, files)) / images.numel(),
        "encode_mb_per_s": million / (written - start),
        "decode_mb_per_s": million / seconds,
    }


def write_ours(archive: Archive, images: Tensor) -> bytes:
    return archive.compress([images], None, lossless=True)


def ours(archive: Archive, data: bytes) -> Tensor:
    return torch.stack([image for _, image in archive.decompress(data)])


if __name__ == "__main__":
    main()
