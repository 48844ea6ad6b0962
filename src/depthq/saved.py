"""A module in a folder: config.json, what it was made of, and model.safetensors with a checksum of both. No pickle.

What is read is checked before it is trusted: the checksum tells damage, and a config cannot make us build more than the
weights in the file hold.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from depthq.files import readable, replacing

Module = TypeVar("Module", bound=nn.Module)

CHECKSUM = "depthq_sha256"
"""The key in the weights' metadata; files without it come from before there was one, and are taken as they are."""
_DEPTHS = ("num_residual_blocks", "num_layers")
"""Config keys that say how many parts there are: no more than tensors."""
_HARMLESS = 2**16
"""What any whole number may be, however few weights there are."""
_SETTINGS = ("commitment_weight", "entropy_weight", "inverse_temperature")
"""Config keys of what is no size, though it may be a whole number."""


def save_module(module: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write both files into a folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
    weights = folder / SAFETENSORS_SINGLE_FILE
    # One entry of metadata alone: several would be written in any order, and the same weights give other bytes.
    save_file(tensors, weights, metadata={CHECKSUM: _checksum(config, tensors)})
    readable(weights)
    with replacing(folder / CONFIG_NAME) as file:
        file.write(json.dumps(config, sort_keys=True, indent=2).encode())


def plain(value: Any) -> Any:
    """What a module is made of as JSON has it: numbers, collections, arrays and tensors of any kind as Python's own."""
    if hasattr(value, "tolist"):  # NumPy's and PyTorch's
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, Collection) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return float(value) if isinstance(value, Real) and not isinstance(value, int) else value


def is_saved(folder: Path) -> bool:
    """Whether a folder has both files."""
    return (folder / CONFIG_NAME).is_file() and (folder / SAFETENSORS_SINGLE_FILE).is_file()


def load_module(folder: Path, make: Callable[[dict[str, Any]], Module]) -> Module:
    """The module, in eval mode, that `save_module` wrote.

    Args:
        folder: Where it was written to.
        make: Makes it, untrained, of its config; raises ValueError, TypeError or KeyError if it is none.

    Raises:
        ValueError: If a file is missing or damaged, or they do not fit together.
    """
    config_file, weights = folder / CONFIG_NAME, folder / SAFETENSORS_SINGLE_FILE
    for file in (config_file, weights):
        if not file.is_file():
            raise ValueError(f"{folder} must hold {file.name}; got none; is it a save_pretrained folder?")
    config = _read_config(config_file)
    tensors, checksum = _read_weights(weights)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        _check_size(config, shapes)
        with torch.device("meta"):
            skeleton = make(config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, RecursionError) as error:
        raise ValueError(
            f"{config_file} must be a JSON object of config fields; got: {error!r}; copy it again"
        ) from error
    for name, tensor in _tensors_of(skeleton):
        if shapes.get(name) != tuple(tensor.shape):
            raise ValueError(
                f"{weights} must be whole and fit {CONFIG_NAME}; got {name} of shape {shapes.get(name)} for "
                f"{tuple(tensor.shape)}; copy both again"
            )
    try:
        if checksum not in (None, _checksum(config, tensors)):
            raise ValueError(f"the checksum differs: it or {CONFIG_NAME} is not as it was written")
        module = make(config)
        module.load_state_dict(tensors)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{weights} must be whole and fit {CONFIG_NAME}; got: {error}; copy both again") from error
    return module.eval()


def _read_weights(file: Path) -> tuple[dict[str, Tensor], str | None]:
    """Tensors and checksum, of one opened file: what replaces it meanwhile is not mixed in."""
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, (opened.metadata() or {}).get(CHECKSUM)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{file} must be whole and fit {CONFIG_NAME}; got: {error}; copy it again") from error


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:  # of JSON, or of text
        raise ValueError(f"{file} must be a JSON object of config fields; got: {error}; copy it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} must be a JSON object of config fields; got {type(config).__name__}; copy it again")
    return config


def _check_size(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError if a number of the config says that there is more than the file holds.

    Tensors are compared one by one later, when they are made without memory; what may not grow here is how many parts
    are made: depths, and the lists at the top of a config, which have an entry for each.
    """
    numel = sum(torch.Size(shape).numel() for shape in shapes.values())
    depths = {name: config[name] for name in _DEPTHS if isinstance(config.get(name), int)}
    lengths = {f"the length of {name}": len(value) for name, value in config.items() if isinstance(value, list)}
    for name, number in (depths | (lengths if shapes else {})).items():
        if number > len(shapes):
            raise ValueError(f"{name} must fit the weights, {len(shapes)} tensors; got {number}")
    for name, number in _numbers(config):
        if shapes and name not in _SETTINGS and abs(number) > max(numel, _HARMLESS):
            raise ValueError(f"{name} must fit the weights, {numel} numbers; got {number}")


def _numbers(value: Any, key: str = "config") -> Iterator[tuple[str, int]]:
    """Every whole number in it, and the key that it stands under; nothing is built of others."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value


def _tensors_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    persistent = module.state_dict().keys()
    yield from ((name, buffer) for name, buffer in module.named_buffers() if name in persistent)


def _checksum(config: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
