"""A quantizer on its own in a folder: config.json, what it was made of, and model.safetensors. No pickle."""

import inspect
import json
import operator
from pathlib import Path
from typing import Any, ClassVar, Self

from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from depthq.files import readable


class PretrainedQuantizer(nn.Module):
    """Remembers the arguments it was made with, so that it can be made again."""

    _classes: ClassVar[dict[str, type["PretrainedQuantizer"]]] = {}
    _arguments: dict[str, Any]

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        cls._classes[cls.__name__] = cls

    def __new__(cls, *args: Any, **options: Any) -> Self:
        new = super().__new__(cls)
        if args or options:  # copies and pickles make an empty one, and fill it with what the first remembered
            bound = inspect.signature(cls.__init__).bind(new, *args, **options)
            arguments = dict(list(bound.arguments.items())[1:])
            object.__setattr__(new, "_arguments", arguments | arguments.pop("options", {}))
        return new

    def to_config(self) -> dict[str, Any]:
        """Its class and the arguments that it was made with, as plain data."""
        plain = json.dumps({"class": type(self).__name__, "arguments": self._arguments}, default=operator.index)
        return json.loads(plain)

    @staticmethod
    def from_config(config: dict[str, Any]) -> Any:
        """A new quantizer, without what it had learned, of what `to_config` gave.

        Raises:
            ValueError: If it is no such configuration.
        """
        try:
            return PretrainedQuantizer._classes[config["class"]](**config["arguments"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"config must be what to_config gave of a quantizer; got {config!r}: {error}") from error

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the quantizer into a folder, made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self, str(folder / SAFETENSORS_SINGLE_FILE))
        readable(folder / SAFETENSORS_SINGLE_FILE)
        (folder / CONFIG_NAME).write_text(json.dumps(self.to_config(), sort_keys=True, indent=2))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The quantizer, in eval mode, that `save_pretrained` wrote.

        Args:
            folder: Where it was written to.

        Raises:
            ValueError: If the folder holds none, one of another class, or it is damaged.
        """
        config, weights = Path(folder) / CONFIG_NAME, Path(folder) / SAFETENSORS_SINGLE_FILE
        if not config.is_file() or not weights.is_file():
            raise ValueError(
                f"{folder} must hold {CONFIG_NAME} and {weights.name} of a quantizer; save one there first"
            )
        try:
            quantizer = cls.from_config(json.loads(config.read_text()))
            load_model(quantizer, weights)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{folder} must hold a whole quantizer; got: {error!r}; save it again") from error
        if not isinstance(quantizer, cls):
            name = type(quantizer).__name__
            raise ValueError(f"{folder} must hold a {cls.__name__}; got a {name}; load it with {name}.from_pretrained")
        return quantizer.eval()
