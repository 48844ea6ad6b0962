"""A folder of shards: codes of many images in files of `depthq.codes.file`, each of so many images of a source.

shards.json says what is encoded and how it is cut into shards; it is written first. done.jsonl has a line for each
shard that is done: how many images are in its file, and the names of bad ones that were left out. A shard's file stands
under its name only when it is whole. So a run that ends early, however it ends, leaves the shards that it has done, and
the next one does the others, each exactly once.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from depthq.files import is_empty_folder, replacing

PLAN_NAME, DONE_NAME = "shards.json", "done.jsonl"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ShardPlan:
    """What is encoded, and how it is cut into shards.

    Raises:
        ValueError: If a number is below 1.
    """

    model_fingerprint: str
    """`DQAE.fingerprint` of the model."""
    source: dict[str, Any]
    """All that decides which images are taken and how they are read, as plain data."""
    num_images: int
    """Of the source, bad ones too."""
    images_per_shard: int

    def __post_init__(self):
        if min(self.num_images, self.images_per_shard) < 1:
            raise ValueError(
                f"num_images and images_per_shard must be at least 1; got {self.num_images} and {self.images_per_shard}"
            )

    @property
    def num_shards(self) -> int:
        return -(-self.num_images // self.images_per_shard)

    def images_of(self, shard: int) -> range:
        """The numbers of a shard's images in the source."""
        first = shard * self.images_per_shard
        return range(first, min(first + self.images_per_shard, self.num_images))


@dataclass(frozen=True)
class Done:
    """What became of a shard."""

    shard: int
    num_images: int
    """In its file; with 0 there is none."""
    skipped: tuple[str, ...] = ()
    """The names of bad images that were left out."""


class ShardFolder:
    """A folder of shards, whole or not yet.

    Args:
        path: The folder.
        plan: What it holds, or will hold.
        done: The shards that are done.
    """

    def __init__(self, path: Path, plan: ShardPlan, done: dict[int, Done]):
        self.path, self.plan, self._done = path, plan, done

    @classmethod
    def of_plan(cls, path: Path, plan: ShardPlan) -> "ShardFolder":
        """A folder to begin, or one of the same plan to go on with; nothing is written yet.

        Raises:
            ValueError: If the folder holds anything else, or shards of another plan.
        """
        if is_shard_folder(path):
            folder = cls.open(path)
            folder._check_same(plan)
            return cls(path, plan, folder._done)
        if path.exists() and not is_empty_folder(path):
            raise ValueError(f"{path} must not exist yet, be empty or hold shards; it does not; choose another --out")
        return cls(path, plan, {})

    def begin(self) -> None:
        """Write the plan down."""
        with replacing(self.path / PLAN_NAME) as file:
            file.write(json.dumps({"format_version": FORMAT_VERSION} | asdict(self.plan), indent=1).encode())

    @classmethod
    def open(cls, path: Path) -> "ShardFolder":
        """What is there of a folder.

        Raises:
            ValueError: If it is none of shards, damaged, or of a later version.
        """
        file = path / PLAN_NAME
        if not file.is_file():
            raise ValueError(f"{path} must be a folder of shards; it has no {PLAN_NAME}; make one with depthq encode")
        try:
            content = json.loads(file.read_bytes())
            version = content.pop("format_version")
            if version == FORMAT_VERSION:
                plan = ShardPlan(**content)
                return cls(path, plan, {done.shard: done for done in _read_done(path / DONE_NAME, plan)})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{path} must be a whole folder of shards; got: {error}; encode the images again"
            ) from error
        raise ValueError(f"{file} must be of format {FORMAT_VERSION}; got {version}; update depthq")

    def _check_same(self, plan: ShardPlan) -> None:
        ours, theirs = _flat(self.plan), _flat(plan)
        for name in ours | theirs:
            # A colour may be added: shards that left nothing out hold no image that wants one.
            is_added = name == "background" and ours.get(name) is None and not self.skipped
            if ours.get(name) != theirs.get(name) and not is_added:
                raise ValueError(
                    f"{self.path} must hold shards of the same run to go on with; it has {name} {ours.get(name)}, got "
                    f"{theirs.get(name)}; run the same command, or choose another --out"
                )

    def file(self, shard: int) -> Path:
        return self.path / f"codes-{shard:05}-of-{self.plan.num_shards:05}.parquet"

    def missing(self) -> list[int]:
        """The shards that are not done, or whose file is gone."""
        return [shard for shard in range(self.plan.num_shards) if not self._is_done(shard)]

    def _is_done(self, shard: int) -> bool:
        done = self._done.get(shard)
        return done is not None and (done.num_images == 0 or self.file(shard).is_file())

    def mark(self, done: Done) -> None:
        """Note that a shard is done; only after its file stands."""
        line = json.dumps(asdict(done)) + "\n"
        with (self.path / DONE_NAME).open("ab") as file:
            if file.tell() and not _ends_with_a_line(self.path / DONE_NAME):
                line = "\n" + line  # behind one that a killed process left half
            file.write(line.encode())
        self._done[done.shard] = done

    @property
    def num_images(self) -> int:
        """In the files of all shards that are done."""
        return sum(done.num_images for done in self._done.values())

    @property
    def skipped(self) -> list[str]:
        """The names of the bad images that were left out, in order."""
        return [name for shard in sorted(self._done) for name in self._done[shard].skipped]

    def files(self) -> list[Path]:
        """The files of all shards, in order.

        Raises:
            ValueError: If shards are missing.
        """
        if missing := self.missing():
            raise ValueError(
                f"{self.path} must hold all of its {self.plan.num_shards} shards; {len(missing)} are missing, such as "
                f"{self.file(missing[0]).name}; run the depthq encode that began it once more"
            )
        return [self.file(shard) for shard in range(self.plan.num_shards) if self._done[shard].num_images]


def is_shard_folder(path: Path) -> bool:
    """Whether it is a folder of shards, whole or not."""
    return (path / PLAN_NAME).is_file()


def _flat(plan: ShardPlan) -> dict[str, Any]:
    """All that must be the same, in one mapping: `source` is what the plan's source calls so, its path."""
    plain = asdict(plan)
    return {**plain, **plain.pop("source")}


def _read_done(path: Path, plan: ShardPlan) -> Iterator[Done]:
    """Of each line, but such that a killed process left half."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            content = json.loads(line)
            done = Done(content["shard"], content["num_images"], tuple(content["skipped"]))
        except (ValueError, KeyError, TypeError):
            continue
        if done.shard in range(plan.num_shards):
            yield done


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"
