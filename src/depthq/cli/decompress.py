"""Turn a file of depthq compress back into images.

examples:
  depthq decompress runs/cifar photos.dq --out photos/
  depthq decompress runs/cifar photos.dq --out quick-look/ --preview

Writes PNG files under the names that the images had; a file's only image is called as the file is. What is no whole
file of this very model and prior is refused, and nothing is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jsonargparse import ArgumentParser
from torch import Tensor

from depthq.cli.model_and_data import MODEL_HELP, add_model
from depthq.files import new_folder
from depthq.pixels import to_picture
from depthq.runs import load_model, load_prior


@dataclass(frozen=True)
class Settings:
    model: Path
    file: Path
    out: Path
    preview: bool
    device: str


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model(parser, help=MODEL_HELP)
    parser.add_argument("file", type=Path, help="what depthq compress wrote")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the images")
    parser.add_argument("--preview", action="store_true", help="what the codes say, without reading on to every pixel")
    options = parser.parse_args(arguments)
    return Settings(options.model, options.file, options.out, options.preview, options.device)


def run(settings: Settings) -> None:
    from depthq.coding import Archive

    if not settings.file.is_file():
        raise ValueError(f"{settings.file} must be a file of depthq compress; there is none; check the path")
    archive = Archive(load_model(settings.model).to(settings.device), load_prior(settings.model))
    count = 0
    with new_folder(settings.out) as folder:
        images = archive.decompress(settings.file.read_bytes(), preview=settings.preview)
        for path, image in _with_paths(images, folder, settings.file.stem):
            path.parent.mkdir(parents=True, exist_ok=True)
            to_picture(image).save(path)
            count += 1
    print(f"{settings.out}: {count} images")


def _with_paths(
    images: Iterator[tuple[str | None, Tensor]], folder: Path, only_name: str
) -> Iterator[tuple[Path, Tensor]]:
    """Where each image goes: its name with .png for its suffix, behind it where that name is taken."""
    taken = set()
    for name, image in images:
        relative = PurePosixPath(only_name + ".png" if name is None else name)
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ValueError(
                f"names in the file must lie within a folder; got {name!r}; it was not made by depthq compress"
            )
        path = relative.with_suffix(".png")
        if path in taken:
            path = relative.with_name(relative.name + ".png")
        taken.add(path)
        yield folder / path, image
