"""The Depth-Quantized Auto-Encoder (Sec. 4.3, App. A.2)."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from depthq.codes import Codes
from depthq.likelihoods import make_likelihood
from depthq.models.blocks import Downsample, Upsample, residual_blocks
from depthq.models.causal_head import CausalHead
from depthq.models.config import DQAEConfig
from depthq.models.level import Level
from depthq.models.pretrained import Pretrained
from depthq.models.quantizer import QUANTIZERS
from depthq.pixels import normalize, stripes
from depthq.quantizers import CodebookOptions, QuantizerOutput
from depthq.quantizers.base import as_int, draw_num_kept
from depthq.quantizers.kept_state import IS_FROZEN


@dataclass(frozen=True)
class DQAEOutput:
    """One forward pass over B images."""

    parameters: Tensor
    """(B, P, H, W) what the decoder says of the image: the parameters of `DQAE.likelihood`."""
    codes: Codes | None
    """The codes; None without a quantizer."""
    levels: tuple[QuantizerOutput, ...]
    """Each level's quantizer output, coarse to fine."""
    features: Tensor | None = None
    """(B, F, H, W) the decoder's last hidden map, which a causal head reads; None without one."""


class DQAE(Pretrained):
    """Images to hierarchical codes and back (Algorithm 1).

    The encoder yields one map per level. The coarsest is quantized first; each finer one is quantized given the
    decoding of all coarser codes. Every level's quantized map is upsampled to the finest grid, and the image decoder
    reads all of them together. The model is fully convolutional: any image size that `config.image_multiple` divides.

    While training it may leave parts of the codes out of the decoder's sight, so that each prefix of them comes to mean
    something: `level_dropout` and `codebook_dropout`, shares in [0, 1) of the images of a step, which
    `depthq.training` sets. What is left out counts as zero, as in `decode`. The codes stay the same: finer levels are
    quantized given all of the coarser ones.

    Args:
        config: What it is made of.

    Example:
        >>> model = DQAE(DQAEConfig(num_codebooks=5, codebook_size=128))
        >>> images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
        >>> codes = model.encode(images)
        >>> codes.levels[0].shape
        torch.Size([2, 5, 8, 8])
        >>> model.decode(codes).shape
        torch.Size([2, 3, 32, 32])
    """

    levels: "Sequence[Level]"  # an nn.ModuleList, which does not say of what

    def __init__(self, config: DQAEConfig):
        super().__init__(config)
        self.level_dropout = self.codebook_dropout = 0.0
        self.likelihood = make_likelihood(config.likelihood, config.image_channels)
        self.levels = nn.ModuleList(_level(config, level) for level in range(config.num_levels))  # type: ignore[assignment]
        width, blocks = config.channels[-1], config.num_residual_blocks
        self.mix = nn.Conv2d(config.num_levels * width, width, 3, padding=1)
        self.decoder = nn.Sequential(residual_blocks(width, blocks), *_upsampling(config), nn.ReLU())
        self.head = nn.Conv2d(config.channels[0], self.likelihood.num_parameters, 1)
        self.likelihood.start(self.head)
        self.causal_head = (
            CausalHead(config.horizon, config.image_channels, config.channels[0]) if config.horizon else None
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    if TYPE_CHECKING:  # nn.Module's returns Any

        def __call__(self, images: Tensor) -> DQAEOutput: ...

    def forward(self, images: Tensor) -> DQAEOutput:
        """Encode, quantize and decode. What training makes of it is `depthq.training.paper_objective`, or your own.

        Args:
            images: uint8 (B, C, H, W).

        Raises:
            ValueError: If images have another dtype, channel count, or a size that the strides do not divide.
        """
        features = self._features(images)
        kept_levels = self._draw_num_kept(images, self.config.num_levels, self.level_dropout)
        kept_codebooks = self._draw_num_kept(images, self.config.num_codebooks, self.codebook_dropout)
        decoding, maps, outputs = None, [], []
        for index, (level, feature) in enumerate(zip(self.levels, features, strict=True)):
            latents = level.latents(feature, decoding)
            out = level.quantizer(latents)
            outputs.append(out)
            decoding = level.next_decoding(out.quantized, decoding)
            seen = out.quantized
            if kept_codebooks is not None:
                seen = level.quantizer.keep(seen, out.codes, kept_codebooks)
            if kept_levels is not None:
                seen = seen.where((kept_levels > index).view(-1, 1, 1, 1), 0.0)
            maps.append(level.upsampler(seen))
        hidden = self._hidden(maps)
        return DQAEOutput(
            parameters=self._likelihood_parameters(hidden),
            codes=self._codes([out.codes for out in outputs]) if self.codebook_sizes else None,
            levels=tuple(outputs),
            features=None if self.causal_head is None else hidden,
        )

    @torch.no_grad()
    def encode(self, images: Tensor) -> Codes:
        """Codes of images uint8 (B, C, H, W); raises ValueError as `forward`, and if the model has no quantizer."""
        self._check_has_codes()
        decoding, codes = None, []
        for level, feature in zip(self.levels, self._features(images), strict=True):
            codes.append(level.quantizer.encode(level.latents(feature, decoding)))
            decoding = level.next_decoding(level.quantizer.decode(codes[-1]).to(self.head.weight.dtype), decoding)
        return self._codes(codes)

    @torch.no_grad()
    def decode(self, codes: Codes, levels: Sequence[int] | None = None, num_codebooks: int | None = None) -> Tensor:
        """Images uint8 (B, C, H, W) of codes: the mean of p(image | codes), rounded.

        A model shows most of a prefix of the codes if it was trained for that: `level_dropout`, `codebook_dropout`.

        Args:
            codes: Codes of this model.
            levels: The levels to use, all by default; the others count as zero, which shows what these alone know.
            num_codebooks: Of each level the first so many, 1..M, all by default; the others count as zero.

        Raises:
            ValueError: If the codes are another model's, or a level or so many codebooks do not exist.
        """
        hidden = self.hidden(codes, levels, num_codebooks)
        means = (
            self.likelihood.mean(self._likelihood_parameters(hidden[:, :, rows])) for rows in stripes(hidden.shape)
        )
        return torch.cat([mean.round().to(torch.uint8) for mean in means], dim=2)

    @torch.no_grad()
    def sample(self, codes: Codes, generator: torch.Generator | None = None) -> Tensor:
        """Images uint8 (B, C, H, W) drawn from p(image | codes): by the causal head if there is one, front by front.

        Args:
            codes: Codes of this model.
            generator: Source of randomness, on the model's device; by default the global one.

        Raises:
            ValueError: If the codes are another model's.
        """
        hidden = self.hidden(codes)
        if self.causal_head is not None:
            return self.causal_head.sample(hidden, generator)
        return self.likelihood.sample(self._likelihood_parameters(hidden), generator)

    def hidden(self, codes: Codes, levels: Sequence[int] | None = None, num_codebooks: int | None = None) -> Tensor:
        """The decoder's last hidden map (B, F, H, W), which both heads read; arguments and errors as `decode`."""
        self._check_own(codes)
        used = set(range(self.config.num_levels)) if levels is None else _as_set("levels", levels)
        if not used <= set(range(self.config.num_levels)):
            raise ValueError(f"levels must lie in [0, {self.config.num_levels}); got {sorted(used)}")
        if num_codebooks is not None and not 1 <= as_int("num_codebooks", num_codebooks) <= self.config.num_codebooks:
            raise ValueError(f"num_codebooks must lie in [1, {self.config.num_codebooks}]; got {num_codebooks}")
        maps = []
        for index, (level, level_codes) in enumerate(zip(self.levels, codes.levels, strict=True)):
            quantized = level.quantizer.decode(level_codes[:, :num_codebooks]).to(self.head.weight.dtype)
            maps.append(level.upsampler(quantized if index in used else torch.zeros_like(quantized)))
        return self._hidden(maps)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images uint8 (B, C, H, W) through the codes and back; without a quantizer, through the latents."""
        if not self.codebook_sizes:
            with torch.no_grad():
                return self.likelihood.mean(self(images).parameters).round().to(torch.uint8)
        return self.decode(self.encode(images))

    def _features(self, images: Tensor) -> list[Tensor]:
        """One map per level, coarse to fine."""
        self._check_images(images)
        x = normalize(images.contiguous(memory_format=torch.channels_last)).to(self.head.weight.dtype)
        features = []
        for level in reversed(self.levels):
            x = level.encoder(x)
            features.append(x)
        return features[::-1]

    def _draw_num_kept(self, images: Tensor, most: int, dropout: float) -> Tensor | None:
        if not self.training or not dropout:
            return None
        return draw_num_kept(len(images), most, dropout).to(images.device)

    def _hidden(self, maps: list[Tensor]) -> Tensor:
        return self.decoder(self.mix(torch.cat(maps, dim=1)))

    def _likelihood_parameters(self, hidden: Tensor) -> Tensor:
        if not self.likelihood.needs_float32:
            return self.head(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.to(self.head.weight.dtype))

    def _codes(self, levels: list[Tensor]) -> Codes:
        return Codes.unchecked(tuple(levels), self.codebook_sizes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def codebook_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Per level, coarse to fine, K of each of its codebooks; empty without a quantizer."""
        sizes = (level.quantizer.codebook_sizes for level in self.levels)
        return tuple(filter(None, sizes))

    def fingerprint(self) -> str:
        """SHA-256 of all weights and statistics: tells whether codes were made by this very model.

        Each training step changes it, even where it learns nothing but how often codes are used; `freeze` does not.
        """
        digest = hashlib.sha256()
        for name, tensor in self.state_dict().items():
            if name.endswith(IS_FROZEN):
                continue
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _check_has_codes(self) -> None:
        if not self.codebook_sizes:
            raise ValueError(
                f"quantizer must have codebooks for codes to exist; got {self.config.quantizer!r}, which has none; "
                "train a model with another quantizer"
            )

    def _check_images(self, images: Tensor) -> None:
        channels, multiple = self.config.image_channels, self.config.image_multiple
        if not isinstance(images, Tensor):
            raise ValueError(
                f"images must be a torch.Tensor; got {type(images).__name__}; convert it with torch.from_numpy"
            )
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(
                f"images must be uint8 (B, C, H, W); got {images.dtype} {tuple(images.shape)}; pass them unnormalised"
            )
        if images.shape[1] != channels:
            raise ValueError(
                f"images must have {channels} channels, as image_channels says; got {images.shape[1]}; "
                f"convert them, or train a model with image_channels={images.shape[1]}"
            )
        height, width = images.shape[2:]
        if height % multiple or width % multiple or not height or not width:
            raise ValueError(
                f"images must have height and width that are multiples of {multiple}, the stride of the coarsest "
                f"level; got {height}x{width}; crop them, or pad them: "
                f"depthq.pixels.pad_to_multiple(images, {multiple})"
            )

    def _check_own(self, codes: Codes) -> None:
        self._check_has_codes()
        if codes.codebook_sizes != self.codebook_sizes:
            raise ValueError(
                f"codes must have this model's codebook sizes {self.codebook_sizes}; got {codes.codebook_sizes}; "
                "decode them with the model that made them"
            )
        if codes.levels[0].dim() != 4:
            raise ValueError(
                f"codes must be maps (B, M, H, W) for this model; got levels of shape {tuple(codes.levels[0].shape)}; "
                "a quantizer on its own decodes codes of any rank"
            )
        height, width = codes.levels[0].shape[2:]
        for level, level_codes in enumerate(codes.levels):
            expected = (height * 2**level, width * 2**level)
            if tuple(level_codes.shape[2:]) != expected:
                raise ValueError(
                    f"codes of level {level} must lie on a grid of {expected}, level 0 having {height}x{width}; "
                    f"got {tuple(level_codes.shape[2:])}"
                )


def _as_set(name: str, values: Iterable[int]) -> set[int]:
    if not isinstance(values, Iterable):
        raise ValueError(f"{name} must be several whole numbers; got {values!r}; pass [{values}] for a single one")
    return {as_int(name, value) for value in values}


def _level(config: DQAEConfig, level: int) -> Level:
    width, num_finer = config.channels[-1], config.num_levels - 1 - level
    options: CodebookOptions = {
        "commitment_weight": config.commitment_weight,
        "codebook_update": config.codebook_update,
        "distance": config.distance,
        "rotation_trick": config.rotation_trick,
        "decay": config.decay,
        "rare_code_threshold": config.rare_code_threshold,
    }
    make = QUANTIZERS[config.quantizer]
    return Level(
        Downsample(width, width, config.num_residual_blocks) if num_finer else _finest_encoder(config),
        make(config.num_codebooks, config.level_sizes[level], config.codebook_dim, options),
        width=width,
        num_residual_blocks=config.num_residual_blocks,
        num_coarser=level,
        num_finer=num_finer,
    )


def _finest_encoder(config: DQAEConfig) -> nn.Sequential:
    widths = [config.image_channels, *config.channels]
    return nn.Sequential(*(Downsample(i, o, config.num_residual_blocks) for i, o in pairwise(widths)))


def _upsampling(config: DQAEConfig) -> list[Upsample]:
    """From the finest grid to the image: the encoder's widths backwards; the last step keeps its width."""
    widths = [*reversed(config.channels), config.channels[0]]
    blocks = [config.num_residual_blocks] * (len(config.channels) - 1) + [0]  # none at full resolution
    return [Upsample(i, o, n) for i, o, n in zip(widths[:-1], widths[1:], blocks, strict=True)]
