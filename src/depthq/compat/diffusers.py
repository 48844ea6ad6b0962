"""Any quantizer of ours in diffusers' `VQModel`."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from depthq.compat.model_dtype import ModelDtype
from depthq.extras import explain_missing
from depthq.quantizers import DepthwiseQuantizer, Quantizer

with explain_missing():
    from diffusers.models.autoencoders.vq_model import VQModel

_WEIGHTS = "diffusion_pytorch_model"
"""What diffusers' names of files of weights begin with."""


class VQModelQuantizer(ModelDtype):
    """A quantizer with the call and the returns of the one in diffusers' `VQModel`.

    Args:
        quantizer: On axis 1, with as many entries in and out.

    Raises:
        ValueError: If the quantizer is on another axis, or gives another size than it takes.
    """

    def __init__(self, quantizer: Quantizer):
        super().__init__()
        if quantizer.axis != 1 or quantizer.dim != quantizer.out_dim:
            raise ValueError(
                "quantizer must take and give one number of channels on axis 1; got "
                f"dim={quantizer.dim}, out_dim={quantizer.out_dim}, axis={quantizer.axis}"
            )
        self.quantizer = quantizer

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        """z (B, C, H, W) to (quantized, loss, (None, None, indices)), indices int64 (B H W,), or (B H W, M).

        The loss is the quantizer's own: beta times the commitment loss, summed over codebooks, where codebooks are
        learned by moving averages; theirs has the codebooks' term besides.
        """
        out = self.quantizer(z)
        indices = out.codes.movedim(1, -1).flatten(0, -2)
        return out.quantized, out.loss, (None, None, indices.squeeze(1))

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """Quantized (B, C, H, W), in the model's dtype, of indices as `forward` gives them; shape is (B, H, W, C)."""
        batch, height, width, _ = shape
        codes = indices.view(batch, height, width, self.quantizer.num_codebooks).movedim(-1, 1)
        return self._as_model(self.quantizer.decode(codes))


def swap_quantizer(model: VQModel, quantizer: Quantizer) -> VQModel:
    """Put a quantizer of ours into a `VQModel`, in place; `model.save_pretrained` then writes it too.

    Args:
        model: Whose encoder gives `vq_embed_dim` channels, the quantizer's `dim`.
        quantizer: Any.

    Raises:
        ValueError: If the sizes do not fit.

    Example:
        >>> model = swap_quantizer(model, DepthwiseQuantizer(dim=16, num_codebooks=4, codebook_size=256))
    """
    channels = model.quant_conv.out_channels
    if quantizer.dim != channels:
        raise ValueError(f"dim must be the model's vq_embed_dim, {channels}; got {quantizer.dim}")
    model.quantize = VQModelQuantizer(quantizer).to(model.dtype)  # type: ignore[assignment]
    model.register_to_config(depthq_quantizer=quantizer.to_config())
    return model


def from_pretrained(folder: str | Path, variant: str | None = None) -> VQModel:
    """The model, in eval mode and in float32, with our quantizer in it, that `save_pretrained` wrote into a folder.

    Args:
        folder: With safetensors, in one file or in shards; pickled weights (safe_serialization=False) are not read.
        variant: As it was given to `save_pretrained`.

    Raises:
        ValueError: If the folder holds no such model.
    """
    config_file, weights = Path(folder) / "config.json", _weights_files(Path(folder), variant)
    if not config_file.is_file():
        raise ValueError(f"{folder} must hold {config_file.name} and weights; got no config; save a model there first")
    config = json.loads(config_file.read_text())
    if "depthq_quantizer" not in config:
        raise ValueError(
            f"{config_file} must name a depthq_quantizer; got a model with diffusers' own; "
            "load it with diffusers.VQModel.from_pretrained"
        )
    made_of = config.pop("depthq_quantizer")
    model = VQModel.from_config(config)
    assert isinstance(model, VQModel)  # a tuple only if unused keywords are asked for
    swap_quantizer(model, Quantizer.from_config(made_of))
    model.load_state_dict({name: tensor for file in weights for name, tensor in load_file(file).items()})
    return model.eval()


def _weight_map(index: Path) -> dict[str, str]:
    """By tensor the file that holds it."""
    try:
        return json.loads(index.read_text())["weight_map"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{index} must be an index of weights; got: {error!r}; copy the folder again") from error


def _weights_files(folder: Path, variant: str | None) -> list[Path]:
    """The file of all weights, or the shards that an index names; raises ValueError where any is missing."""
    middle = f".{variant}" if variant else ""
    single, index = folder / f"{_WEIGHTS}{middle}.safetensors", folder / f"{_WEIGHTS}.safetensors.index{middle}.json"
    files = [single]
    if index.is_file():  # which diffusers, too, takes first
        files = sorted({folder / Path(name).name for name in _weight_map(index).values()})
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return files
    found = sorted(path.name for path in folder.glob(f"{_WEIGHTS}*"))
    if not found:
        remedy = "save a model there first"
    elif index.is_file():
        remedy = "copy the folder again"
    elif all(name.endswith(".bin") or ".bin." in name for name in found):
        remedy = "pickled weights are not read: save the model without safe_serialization=False"
    else:
        remedy = "pass the variant that it was saved with"
    raise ValueError(
        f"{folder} must hold config.json and {', '.join(missing)}; got {', '.join(found) or 'no weights'}; {remedy}"
    )


def import_quantizer(model: VQModel, **options) -> Quantizer:
    """Ours with the codebook of a trained `VQModel`: same codes, same quantized.

    Args:
        model: With diffusers' own quantizer.
        options: Those of `DepthwiseQuantizer.from_codebooks`.

    Raises:
        ValueError: If the model has another quantizer.
    """
    if isinstance(model.quantize, VQModelQuantizer):
        ours = type(model.quantize.quantizer).__name__
        raise ValueError(
            f"model must have diffusers' own quantizer; got ours, {ours}; take model.quantize.quantizer as it is"
        )
    return DepthwiseQuantizer.from_codebooks(model.quantize.embedding.weight.detach()[None], **options)
