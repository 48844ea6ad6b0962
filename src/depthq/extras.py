"""What does not come with the core: which extra of depthq brings which package."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

PACKAGES = {
    "coding": ("constriction",),
    "train": (
        "datasets",
        "filelock",
        "fsspec",
        "jsonargparse",
        "lightning",
        "PIL",
        "pyarrow",
        "shtab",
        "skimage",
        "torchmetrics",
        "tqdm",
        "yaml",
    ),
    "diffusers": ("diffusers",),
    "report": ("jinja2", "matplotlib", "skimage"),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "timm": ("timm",),
    "transformers": ("transformers",),
    "wandb": ("wandb",),
    "vision": ("torchvision",),
}
"""By extra, the packages that it brings, as they are imported."""


class MissingExtraError(ModuleNotFoundError):
    """A package is not installed; the message says which `pip install` brings it."""


@contextmanager
def explain_missing() -> Iterator[None]:
    """Imports in the block that fail for want of an extra's package say what to install.

    Raises:
        MissingExtraError: Instead of the ModuleNotFoundError of a package in `PACKAGES`.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extras = [extra for extra, packages in PACKAGES.items() if package in packages]
        if not extras:
            raise
        raise _missing([package], extras[:1]) from error


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not loaded for that."""
    return find_spec(package) is not None


def check_installed(*extras: str) -> None:
    """Raise MissingExtraError unless all packages of these extras, keys of `PACKAGES`, are there; none is loaded."""
    missing = [package for extra in extras for package in PACKAGES[extra] if not is_installed(package)]
    if missing:
        raise _missing(missing, [extra for extra in extras if {*missing} & {*PACKAGES[extra]}])


def install_command(*extras: str) -> str:
    """What brings these extras."""
    return f"pip install 'depthq[{','.join(extras)}]'"


def _missing(packages: list[str], extras: list[str]) -> MissingExtraError:
    shown = ", ".join(packages[:3]) + (f" and {len(packages) - 3} more" if len(packages) > 3 else "")
    return MissingExtraError(
        f"{shown} must be installed for this; got none; {install_command(*extras)}", name=packages[0]
    )
