"""Packages whose names load with their first use, so that importing a package costs what is used of it."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

from depthq.extras import explain_missing


def lazy_names(
    package: str, homes: Mapping[str, str | None]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` (PEP 562) of a package that offers what its modules hold.

    Args:
        package: The package's `__name__`.
        homes: Each name that loads with its first use, and the module that holds it; None where the name is itself a
            module of the package.

    Example:
        >>> __getattr__, __dir__ = lazy_names(__name__, {"train": "depthq.training.run"})
    """

    module = sys.modules[package]

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=module)
        home = homes[name]
        with explain_missing():
            value = import_module(f"{package}.{name}") if home is None else getattr(import_module(home), name)
        setattr(module, name, value)  # the next use finds it without us
        return value

    def names() -> list[str]:
        return sorted({*homes, *module.__all__, *(name for name in vars(module) if name.startswith("__"))})

    return load, names
