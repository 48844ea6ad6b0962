"""Turn a file of depthq compress back into images.

examples:
  depthq decompress runs/cifar photos.dq --out photos/
  depthq decompress runs/cifar photos.dq --out quick-look/ --preview

Writes PNG files under the names that the images had; a file's only image is called as the file is. What is no whole
file of this very model and prior is refused, and nothing is written.
"""

from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser

from depthq.cli.model_and_data import add_model
from depthq.cli.paths import user_path
from depthq.cli.pictures import save_by_name
from depthq.files import new_folder
from depthq.runs import load_model, load_prior


@dataclass(frozen=True)
class Settings:
    model: Path
    file: Path
    out: Path
    preview: bool
    device: str


def parse(parser: ArgumentParser, arguments: list[str]) -> Settings:
    add_model(parser)
    parser.add_argument("file", type=user_path, help="what depthq compress wrote")
    parser.add_argument("--out", type=user_path, required=True, help="a new folder for the images")
    parser.add_argument("--preview", action="store_true", help="what the codes say, without reading on to every pixel")
    options = parser.parse_args(arguments)
    return Settings(options.model, options.file, options.out, options.preview, options.device)


def run(settings: Settings) -> None:
    from depthq.coding import Archive

    if not settings.file.is_file():
        raise ValueError(f"{settings.file} must be a file of depthq compress; there is none; check the path")
    archive = Archive(load_model(settings.model).to(settings.device), load_prior(settings.model))
    with new_folder(settings.out) as folder:
        images = archive.decompress(settings.file.read_bytes(), preview=settings.preview)
        only_name = settings.file.stem + ".png"
        count = save_by_name(((only_name if name is None else name, image) for name, image in images), folder)
    print(f"{settings.out}: {count} images")
