"""A quantizer on its own in a folder: config.json, what it was made of, and model.safetensors. No pickle."""

import inspect
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

from torch import nn

from depthq.saved import is_saved, load_module, plain, save_module


class PretrainedQuantizer(nn.Module):
    """Remembers the arguments it was made with, so that it can be made again."""

    _classes: ClassVar[dict[str, type["PretrainedQuantizer"]]] = {}
    _arguments: Mapping[str, Any] = MappingProxyType({})  # of those that take none

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        cls._classes[cls.__name__] = cls

    def __new__(cls, *args: Any, **options: Any) -> Self:
        new = super().__new__(cls)
        if args or options:  # copies and pickles make an empty one, and fill it with what the first remembered
            bound = inspect.signature(cls.__init__).bind(new, *args, **options)
            arguments = {}
            for name, value in list(bound.arguments.items())[1:]:
                kind = bound.signature.parameters[name].kind
                named = {f"*{name}": value} if kind is kind.VAR_POSITIONAL else {name: value}
                arguments |= plain(value if kind is kind.VAR_KEYWORD else named)
            object.__setattr__(new, "_arguments", arguments)
        return new

    def to_config(self) -> dict[str, Any]:
        """Its class and the arguments that it was made with, as plain data."""
        if unnamed := [name for name in self._arguments if name.startswith("*")]:
            raise ValueError(
                f"{type(self).__name__}.__init__ must name its arguments, as config.json does; got {unnamed[0]}; name "
                "them in its signature"
            )
        plain = json.dumps({"class": type(self).__name__, "arguments": dict(self._arguments)}, default=operator.index)
        return json.loads(plain)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A new quantizer, without what it had learned, of what `to_config` gave.

        Raises:
            ValueError: If it is no such configuration.
        """
        try:
            of_that_name = cls if cls.__name__ == config["class"] else cls._classes[config["class"]]
            return of_that_name(**config["arguments"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"config must be what to_config gave of a quantizer; got {config!r}: {error}") from error

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the quantizer into a folder, made if need be."""
        save_module(self, self.to_config(), Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The quantizer, in eval mode, that `save_pretrained` wrote.

        Args:
            folder: Where it was written to.

        Raises:
            ValueError: If the folder holds none, one of another class, or it is damaged.
        """
        if not is_saved(Path(folder)):
            raise ValueError(
                f"{folder} must hold config.json and model.safetensors of a quantizer; save one there first"
            )
        quantizer = load_module(Path(folder), cls.from_config)
        if not isinstance(quantizer, cls):
            name = type(quantizer).__name__
            raise ValueError(f"{folder} must hold a {cls.__name__}; got a {name}; load it with {name}.from_pretrained")
        return quantizer
