"""Damaged files, one after the other: each gives the right result, or one clear line and exit code 1 or 2.

    python benchmarks/fuzz.py --mutations 10000      # about a quarter of a second each on one core
    python benchmarks/fuzz.py --mutations 10000 --seed 1 --only codes model

Makes a small run with everything that a run leaves behind, then damages one file at a time (a flipped bit, zeroed, cut,
doubled or foreign bytes, another number or word in a text) and runs the verb that reads it. What counts: no traceback,
no hang (a minute), nothing left at --out of a verb that failed; and where codes, weights or a checkpoint were damaged
and the verb succeeds all the same, its result is bit for bit that of the whole file.
"""

import argparse
import contextlib
import io
import re
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from depthq.cli import main as depthq

SECONDS = 60


@dataclass(frozen=True)
class Target:
    """Files to damage, and what reads them."""

    files: Callable[[Path], list[Path]]
    command: Callable[[Path, Path], list[str]]
    """Of the folder with everything, and --out."""
    must_agree: bool
    """Whether a success must give what the whole files give."""


def run_copy(folder: Path) -> Path:
    """A run goes on in a copy of its own."""
    copy = folder / "again"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "run", copy)
    return copy


TARGETS = {
    "codes": Target(
        lambda folder: [folder / "codes.parquet"],
        lambda folder, out: ["decode", str(folder / "run"), str(folder / "codes.parquet"), "--out", str(out)],
        must_agree=True,
    ),
    "model": Target(
        lambda folder: sorted((folder / "run" / "model").glob("*.[js]*")),
        lambda folder, out: ["decode", str(folder / "run"), str(folder / "codes.parquet"), "--out", str(out)],
        must_agree=True,
    ),
    "prior": Target(
        lambda folder: [folder / "run" / "prior" / name for name in ("config.json", "model.safetensors")],
        lambda folder, out: ["sample", str(folder / "run"), "--images", "2", "--out", str(out)],
        must_agree=True,
    ),
    "checkpoint": Target(
        lambda folder: sorted((folder / "run" / "checkpoints").iterdir()),
        lambda folder, out: ["train", "--out", str(run_copy(folder)), "--resume", "--steps", "7"],
        must_agree=True,
    ),
    "config": Target(
        lambda folder: [folder / "run" / "config.yaml"],
        lambda folder, out: ["evaluate", str(folder / "run"), "--data", str(folder / "photos"), "--limit", "4"],
        must_agree=False,
    ),
    "resumed config": Target(
        lambda folder: [folder / "run" / "config.yaml", folder / "run" / "metrics.jsonl"],
        lambda folder, out: ["train", "--out", str(run_copy(folder)), "--resume", "--steps", "6"],
        must_agree=False,
    ),
    "archive": Target(
        lambda folder: [folder / "photos.dq"],
        lambda folder, out: ["decompress", str(folder / "run"), str(folder / "photos.dq"), "--out", str(out)],
        must_agree=True,
    ),
    "images": Target(
        lambda folder: sorted((folder / "photos").iterdir()),
        lambda folder, out: ["encode", str(folder / "run"), "--data", str(folder / "photos"), "--out", str(out)],
        must_agree=False,
    ),
    "table": Target(
        lambda folder: [folder / "photos.parquet"],
        lambda folder, out: [
            "encode",
            str(folder / "run"),
            "--data",
            str(folder / "photos.parquet"),
            "--out",
            str(out),
        ],
        must_agree=False,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, Counter] = {name: Counter() for name in args.only}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        expected = {name: attempt(folder, TARGETS[name])[1] for name in args.only}
        rng, started = np.random.default_rng(args.seed), time.perf_counter()
        for number in range(args.mutations):
            target = args.only[number % len(args.only)]
            verdict = one(folder, TARGETS[target], expected[target], rng)
            found[target][verdict] += 1
            if verdict not in ("right", "told"):
                print(f"{target} {number}: {verdict}", flush=True)
        minutes = (time.perf_counter() - started) / 60
    print(f"{args.mutations} damaged files, seed {args.seed}, {minutes:.1f} minutes")
    print(f"{'':16}{'told':>8}{'right':>8}{'wrong':>8}")
    for target, counts in found.items():
        wrong = sum(counts.values()) - counts["told"] - counts["right"]
        print(f"{target:16}{counts['told']:8}{counts['right']:8}{wrong:8}")


def prepare(folder: Path) -> None:
    """Photos as files and as a table; a run with model, prior and checkpoint; codes; an archive."""
    import datasets
    from PIL import Image

    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for index in range(12):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(folder / "photos" / f"{index:02}.png")
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted((folder / "photos").iterdir())]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": cells}, features=features).to_parquet(str(folder / "photos.parquet"))
    run, photos = str(folder / "run"), str(folder / "photos")
    size = ["--preset", "tiny", "--steps", "6", "--checkpoint-every", "3", "--likelihood", "categorical"]
    for command in (
        ["train", "--data", photos, "--out", run, *size],
        ["prior", run, "--steps", "3", "--width", "16", "--num-layers", "1", "--num-heads", "2"],
        ["encode", run, "--data", photos, "--out", str(folder / "codes.parquet")],
        ["compress", run, photos, "--out", str(folder / "photos.dq")],
    ):
        code, text = quietly(command)
        assert code == 0, text


def one(folder: Path, target: Target, expected: dict[str, bytes], rng: np.random.Generator) -> str:
    """Damage one file, read it, put it back; what came of it."""
    files = target.files(folder)
    file = files[rng.integers(len(files))]
    whole = file.read_bytes()
    file.write_bytes(damaged(whole, rng))
    try:
        verdict, result = attempt(folder, target)
    finally:
        file.write_bytes(whole)
    if verdict == "right" and target.must_agree and result != expected:
        return f"another result in silence, from {file.name}"
    return verdict


def attempt(folder: Path, target: Target) -> tuple[str, dict[str, bytes]]:
    """The verdict, and what was written."""
    out = folder / "out"
    try:
        code, text = quietly(target.command(folder, out))
        written = contents(out) or contents(folder / "again" / "model")
        is_left = out.exists() and code != 0
    finally:
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)
        shutil.rmtree(folder / "again", ignore_errors=True)
    if code == 0:
        return "right", written
    if "Traceback" in text or code not in (1, 2) or is_left:
        return f"exit code {code}, {'something left, ' if is_left else ''}{text[-300:]!r}", {}
    return "told", {}


def contents(path: Path) -> dict[str, bytes]:
    """Of a file, or of all files in a folder."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def quietly(command: list[str]) -> tuple[int, str]:
    """Exit code, and what was said; an exception that escapes is a traceback."""

    def too_long(*_):
        raise TimeoutError(f"longer than {SECONDS} s")

    said = io.StringIO()
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = depthq([*command, "--quiet"])
    except BaseException as error:
        return 99, f"{said.getvalue()} Traceback: {error!r}"
    finally:
        signal.alarm(0)
    return code, said.getvalue()


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """The same with one kind of damage at a place drawn at random; never the same bytes."""
    changed = bytearray(whole)
    place = int(rng.integers(len(whole)))
    length = int(rng.integers(1, 200))
    match rng.integers(7):
        case 0 | 1 | 2:
            changed[place] ^= 1 << int(rng.integers(8))
        case 3:
            changed[place : place + length] = bytes(min(length, len(whole) - place))
        case 4:
            del changed[place:]
        case 5:
            changed[place:place] = changed[place : place + length]
        case _:
            number = re.search(rb"\d+|\w+", whole[place:])
            if number:
                words = [b"-1", b"1e308", b"null", b"[1]", b'"x"', b"9" * 20, b"true", b"\xff"]
                start, end = (place + edge for edge in number.span())
                changed[start:end] = words[rng.integers(len(words))]
    if bytes(changed) == whole:
        changed[place] ^= 1
    return bytes(changed)


if __name__ == "__main__":
    main()
