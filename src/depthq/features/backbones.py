"""Where features come from: an .npy file, or a named layer of any network."""

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from depthq.extras import install_command
from depthq.files import open_npy, reserve
from depthq.pixels import normalize

NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "imagenet": normalize,
    "symmetric": lambda images: images.float() / 127.5 - 1,
}
"""Pixels 0..255 as networks were trained to see them: less ImageNet's mean and over its deviation, or in -1..1."""


def open_features(path: Path) -> np.ndarray:
    """Features from an .npy file, memory-mapped, so that they may be larger than memory; nothing in it is unpickled.

    Raises:
        ValueError: If the file is no .npy file, is cut off, or holds Python objects.
        OSError: If it cannot be read.
    """
    try:
        return open_npy(path)
    except ValueError as error:
        raise ValueError(
            f"features must be a whole .npy file of numbers; got {path} ({error}); write it with numpy.save"
        ) from error


def save_features(path: Path, batches: Iterable[Tensor], num_maps: int) -> None:
    """Write batches of feature maps (B, C, H, W), `num_maps` maps in all, as one float32 .npy file, batch by batch.

    Raises:
        ValueError: If the batches do not hold `num_maps` maps of one shape.
        OSError: If the disk has no room for all of them.
    """
    features, written = None, 0
    for batch in batches:
        if features is None:
            shape = (num_maps, *batch.shape[1:])
            features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            reserve(path)
        features[written : written + len(batch)] = batch.cpu().numpy()
        written += len(batch)
    if features is None or written != num_maps:
        raise ValueError(f"batches must hold {num_maps} maps; got {written}")
    features.flush()


def load_backbone(name: str, weights: Path | None = None) -> nn.Module:
    """A network by name, in eval mode.

    Args:
        name: "timm:MODEL" or "torchvision:MODEL", from those libraries; or "package.module:factory" for whatever
            that class or function returns, or "package.module:factory:ARGUMENT" to call it with one word.
        weights: A file of tensors by name (.safetensors, or what torch.save made of a state dict), read without
            running code from it. None: the hub's weights for timm and torchvision, read alike, else as the factory
            made it.

    Raises:
        ValueError: If there is no such network, or the weights do not fit it.
        OSError: If weights cannot be read or fetched.
    """
    library, _, model_name = name.partition(":")
    if not model_name:
        raise ValueError(f"backbone must be timm:MODEL, torchvision:MODEL or package.module:factory; got {name!r}")
    if library in ("timm", "torchvision"):
        make = _timm_model if library == "timm" else _torchvision_model
        with _no_code_from_weights(name):
            model = make(model_name, pretrained=weights is None)
    else:
        model = _made_by_factory(name)
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill all of a network's tensors from a file, read as `load_backbone` says.

    Raises:
        ValueError: If the file is not a state dict, or its names and shapes are not the network's.
    """
    given, expected = _read_state_dict(path), model.state_dict()
    problems = [
        f"{key} of shape {tuple(given[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in given and given[key].shape != tensor.shape
    ]
    if not problems:
        keys = model.load_state_dict(given, strict=False)
        problems = [f"no {key}" for key in keys.missing_keys] + [f"an unknown {key}" for key in keys.unexpected_keys]
    if problems:
        wrapped = all(key.startswith("module.") for key in given) and not all(key in given for key in expected)
        remedy = "take 'module.' off the names" if wrapped else "choose the network that they were made for"
        raise ValueError(f"weights must fit the backbone; got {path} with {_first_few(problems)}; {remedy}")


@torch.no_grad()
def layer_maps(model: nn.Module, layer: str, images: Tensor) -> Tensor:
    """What one layer makes of images.

    Args:
        model: Any network, in eval mode.
        layer: The layer's name, as `model.named_modules()` gives it. Of a layer that runs several times, the last run.
        images: float (B, 3, S, S), normalised as the network expects.

    Returns:
        float32 (B, C, H, W).

    Raises:
        ValueError: If there is no such layer, it does not run or gives no maps, or the network cannot take the images.
    """
    outputs: list = [None]

    def keep(module: nn.Module, inputs: tuple, output: object) -> None:
        # A copy: the layer behind it may work in place, as many a ReLU does.
        outputs[0] = output.clone() if isinstance(output, Tensor) else output

    _forward(model, images, {layer: keep})
    (maps,) = outputs
    if not isinstance(maps, Tensor) or maps.dim() != 4:
        got = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
        got = "nothing, as it never ran" if maps is None else got
        raise ValueError(f"layer must give maps (B, C, H, W); got {got} from {layer!r}; choose another layer")
    return maps.float()


def last_map_layer(model: nn.Module, images: Tensor) -> str:
    """Name of the layer that is the last to give maps (B, C, H, W) of more than one position: the last before pooling.

    Raises:
        ValueError: If there is none, or the network cannot take the images.
    """
    seen: list[str] = []

    def note_as(name: str):
        def note(module: nn.Module, inputs: tuple, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
                seen.append(name)

        return note

    with torch.no_grad():
        _forward(model, images, {name: note_as(name) for name, _ in model.named_modules() if name})
    if not seen:
        raise ValueError("backbone must have a layer that gives maps (B, C, H, W) of several positions; got none")
    return seen[-1]


def _forward(model: nn.Module, images: Tensor, hooks: dict) -> None:
    """Run the network with a forward hook on each named layer."""
    handles = [_find_layer(model, name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        model(images)
    except Exception as error:  # whatever its author raises
        raise ValueError(
            f"backbone must take images of shape {tuple(images.shape)}; got {type(error).__name__}: {error}; "
            "choose another size of images, or mend the network"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _find_layer(model: nn.Module, name: str) -> nn.Module:
    layers = {path: layer for path, layer in model.named_modules() if path}  # without the network itself
    if name not in layers:
        near = get_close_matches(name, layers) or [child for child, _ in model.named_children()]
        raise ValueError(f"layer must be one of the backbone's; got {name!r}; try {', '.join(near)}")
    return layers[name]


@contextmanager
def _no_code_from_weights(name: str) -> Iterator[None]:
    """Let `torch.load` read tensors alone, also for a library that asks it to run pickled code (torchvision does)."""
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    except UnpicklingError as error:
        raise ValueError(
            f"weights must be tensors alone; got others for {name!r}: {error}; save their state_dict and give the file"
        ) from error
    finally:
        del os.environ[switch]
        if before is not None:
            os.environ[switch] = before


def _timm_model(name: str, *, pretrained: bool) -> nn.Module:
    timm = _import_extra("timm", extra="timm")
    if not timm.is_model(name):
        raise ValueError(_no_such_model("timm", name, timm.list_models()))
    try:
        return timm.create_model(name, pretrained=pretrained)
    except RuntimeError as error:  # a tag that it does not know, or no weights for this model
        raise ValueError(
            f"backbone must be a model that timm has weights for; got {name!r}: {error}; "
            "choose another tag, or give a file with --weights"
        ) from error


def _torchvision_model(name: str, *, pretrained: bool) -> nn.Module:
    models = _import_extra("torchvision.models", extra="vision")
    if name not in models.list_models():
        raise ValueError(_no_such_model("torchvision", name, models.list_models()))
    return models.get_model(name, weights="DEFAULT" if pretrained else None)


def _made_by_factory(name: str) -> nn.Module:
    module, factory_name, *argument = name.split(":", maxsplit=2)
    try:
        factory = pkgutil.resolve_name(f"{module}:{factory_name}")
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"backbone must name something importable; got {name!r} ({error})") from error
    try:
        model = factory(*argument)
    except Exception as error:  # whatever its author raises
        raise ValueError(
            f"backbone must make a network; got {type(error).__name__}: {error}, from {name!r}; check its argument"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"backbone must make a torch.nn.Module; got {type(model).__name__} from {name!r}")
    return model


def _import_extra(module: str, *, extra: str):
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another version of torch
        raise ValueError(
            f"backbone must come from an installed library; got {error}; {install_command(extra)}"
        ) from error


def _no_such_model(library: str, name: str, known: list[str]) -> str:
    near = ", ".join(get_close_matches(name, known)) or "nothing near it"
    return f"backbone must be a model of {library}; got {name!r}; it has {near}"


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except OSError:
        raise
    except Exception as error:  # the bytes of other files may stop the reading anywhere
        raise ValueError(
            f"weights must be a whole file of tensors by name; got {path} ({type(error).__name__}); "
            "save a network's state_dict() with safetensors or torch.save"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"weights must be tensors by name; got {type(state).__name__} of other things in {path}; "
            "save the network's state_dict() alone"
        )
    return state


def _first_few(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more such" if len(items) > 3 else "")
