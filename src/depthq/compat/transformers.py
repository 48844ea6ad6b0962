"""Any quantizer of ours in transformers' `EncodecModel` and `MimiModel`, and their codebooks in ours."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from depthq.compat.model_dtype import ModelDtype
from depthq.extras import explain_missing
from depthq.quantizers import Quantizer, ResidualQuantizer

with explain_missing():
    from transformers.models.encodec.modeling_encodec import EncodecModel
    from transformers.models.mimi.modeling_mimi import MimiModel


class EncodecQuantizer(ModelDtype):
    """A quantizer with the calls of the one in `EncodecModel`; in one that is not float32, `.to(model.dtype)`.

    These calls are for use: they lead through codes, which gradients do not pass, and codebooks do not learn. To train,
    call `quantizer` itself between the model's encoder and decoder.

    Args:
        quantizer: On axis 1, (B, D, T), with as many entries in and out, and one K for all codebooks.
        frame_rate: Positions per second, from which `bandwidth` follows.

    Raises:
        ValueError: If the quantizer does not fit that.
    """

    def __init__(self, quantizer: Quantizer, frame_rate: int):
        super().__init__()
        _check(quantizer)
        self.quantizer, self.frame_rate = quantizer, frame_rate

    def get_num_quantizers_for_bandwidth(self, bandwidth: float | None = None) -> int:
        """How many codebooks a bandwidth in kbit/s pays for, 1..M; all of them if it is None or 0."""
        if not bandwidth:
            return self.quantizer.num_codebooks
        bits_per_second = math.log2(self.quantizer.codebook_sizes[0]) * self.frame_rate
        return min(max(1, math.floor(1000 * bandwidth / bits_per_second)), self.quantizer.num_codebooks)

    def encode(self, embeddings: Tensor, bandwidth: float | None = None) -> Tensor:
        """Codes int64 (m, B, T) of embeddings (B, D, T), those of the first codebooks that the bandwidth pays for."""
        return self.quantizer.encode(embeddings)[:, : self.get_num_quantizers_for_bandwidth(bandwidth)].movedim(1, 0)

    def decode(self, codes: Tensor) -> Tensor:
        """Quantized (B, D, T), in the model's dtype, of codes (m, B, T)."""
        return self._as_model(self.quantizer.decode(codes.movedim(0, 1)))


class MimiQuantizer(ModelDtype):
    """Quantizers with the calls of the one in `MimiModel`: each sees the embeddings, and what they say is added up.

    In a model that is not float32, `.to(model.dtype)`. As in `EncodecQuantizer`, these calls train nothing.

    Args:
        quantizers: Theirs are two, a semantic and an acoustic one; one will do. On axis 1, (B, D, T), with as many
            entries in and out.
    """

    def __init__(self, quantizers: Sequence[Quantizer]):
        super().__init__()
        for quantizer in quantizers:
            _check(quantizer)
        self.quantizers: Sequence[Quantizer] = nn.ModuleList(quantizers)  # type: ignore[assignment]

    @property
    def num_codebooks(self) -> int:
        """Of all quantizers together."""
        return sum(quantizer.num_codebooks for quantizer in self.quantizers)

    def encode(self, embeddings: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Codes int64 (m, B, T) of embeddings (B, D, T), those of the first `num_quantizers` codebooks.

        Raises:
            ValueError: If there are not so many.
        """
        most = self.num_codebooks
        if num_quantizers is not None and not 1 <= num_quantizers <= most:
            raise ValueError(f"num_quantizers must lie in [1, {most}]; got {num_quantizers}")
        codes = torch.cat([quantizer.encode(embeddings) for quantizer in self.quantizers], 1)
        return codes[:, :num_quantizers].movedim(1, 0)

    def decode(self, codes: Tensor) -> Tensor:
        """Quantized (B, D, T), in the model's dtype, of codes (B, m, T)."""
        quantized, start = torch.zeros((), device=codes.device), 0
        for quantizer in self.quantizers:
            part = codes[:, start : start + quantizer.num_codebooks]
            if part.shape[1]:
                quantized = quantized + quantizer.decode(part)
            start += quantizer.num_codebooks
        return self._as_model(quantized)


def import_encodec(model: EncodecModel) -> ResidualQuantizer:
    """Ours with the residual codebooks of an `EncodecModel`: same codes, same quantized.

    Example:
        >>> model.quantizer = EncodecQuantizer(import_encodec(model), model.config.frame_rate).to(model.dtype)
    """
    return ResidualQuantizer.from_codebooks(_codebooks(model.quantizer)).eval()


def import_mimi(model: MimiModel) -> tuple[ResidualQuantizer, ResidualQuantizer]:
    """Ours with the semantic and the acoustic codebooks of a `MimiModel`, and the projections around them.

    Example:
        >>> model.quantizer = MimiQuantizer(import_mimi(model)).to(model.dtype)
    """
    theirs = model.quantizer
    return (
        _import_part(theirs.semantic_residual_vector_quantizer),
        _import_part(theirs.acoustic_residual_vector_quantizer),
    )


def _import_part(part: Any) -> ResidualQuantizer:
    codebooks = _codebooks(part)
    if part.input_proj is None:
        return ResidualQuantizer.from_codebooks(codebooks).eval()
    size, inner = codebooks[0].shape
    ours = ResidualQuantizer(part.input_proj.in_channels, len(codebooks), size, codebook_dim=inner)
    ours.state.give(codebooks)
    assert ours.project_in is not None
    assert ours.project_out is not None
    with torch.no_grad():
        for layer, conv in ((ours.project_in, part.input_proj), (ours.project_out, part.output_proj)):
            layer.weight.copy_(conv.weight[:, :, 0])
            layer.bias.zero_()
    return ours.eval()


def _codebooks(part: Any) -> list[Tensor]:
    """(K, D) of each of their layers."""
    return [layer.codebook.embed.detach() for layer in part.layers]


def _check(quantizer: Quantizer) -> None:
    if quantizer.axis != 1 or quantizer.dim != quantizer.out_dim or len(set(quantizer.codebook_sizes)) != 1:
        raise ValueError(
            "quantizer must take and give one number of channels on axis 1, with one K for all codebooks; got "
            f"dim={quantizer.dim}, out_dim={quantizer.out_dim}, axis={quantizer.axis}, "
            f"codebook_sizes={quantizer.codebook_sizes}"
        )
