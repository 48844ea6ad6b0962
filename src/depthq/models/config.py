"""What a DQ-AE is made of, and the presets."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

from depthq.models.quantizer import QUANTIZERS
from depthq.quantizers import Distance
from depthq.quantizers.base import as_int, as_number, check_share

LikelihoodName = Literal["l2", "categorical", "logistic_mixture"]


@dataclass(frozen=True, kw_only=True)
class DQAEConfig:
    """Every choice that fixes a DQ-AE's weights; the defaults are the `small` preset.

    Raises:
        ValueError: If a field is out of range or two fields do not fit together.
    """

    image_channels: int = 3
    """C of the images: 3 (colour) or 1 (gray)."""
    likelihood: LikelihoodName = "l2"
    """p(image | codes): l2, categorical (256-way) or logistic_mixture (10 components)."""
    quantizer: str = "depthwise"
    """depthwise (the paper's DQ), shared (its baseline VQ), residual, scalar (FSQ), binary (BSQ), none (a plain
    auto-encoder), or one of your own that you have added to `depthq.models.QUANTIZERS`."""
    num_codebooks: int = 5
    """M, the codebooks of each level."""
    codebook_size: int | tuple[int, ...] = 128
    """K: one number for a single level, or one per level, coarse to fine."""
    codebook_dim: int = 4
    """D, the dimensions of a codeword; scalar and binary quantizers take as many as K needs."""
    channels: tuple[int, ...] = (64, 128)
    """Width of each encoder block of the finest level, each of stride 2; the decoder mirrors it."""
    num_residual_blocks: int = 1
    """Residual blocks behind each change of resolution."""
    commitment_weight: float = 0.25
    """beta of Eq. 5."""
    codebook_update: Literal["ema", "gradient"] = "ema"
    """How codebooks learn: moving averages (App. A.4), or the second term of Eq. 5."""
    distance: Distance = "euclidean"
    """Of latents and codewords: euclidean, or cosine, where both lie on the unit sphere."""
    rotation_trick: bool = False
    """Whether the gradient reaches the latents through the rotation that takes each to its codeword, not straight
    through."""
    decay: float = 0.9
    """EMA decay of the codebooks (gamma of App. A.4): short runs need codebooks that keep up with the encoder."""
    horizon: int = 0
    """h of a causal head, with which each pixel also sees the pixels above and to the left that are at most h away; 0:
    none. Not for L2, which is no probability of 8-bit values."""
    rare_code_threshold: float = 0.1
    """Codes used at most this share of their codebook's mean are re-drawn from the batch (Sec. 4.2)."""

    def __post_init__(self):
        self._check_choices()
        lowest = {"num_codebooks": 1, "codebook_dim": 1, "num_residual_blocks": 0, "horizon": 0}
        for name, bound in lowest.items():
            self._set(name, _whole_number(bound, name, getattr(self, name)))
        size: Any = self.codebook_size
        if hasattr(size, "tolist"):  # NumPy's and PyTorch's, of any rank
            size = size.tolist()
        is_one = not _is_sequence(size)
        self._set("codebook_size", (_whole_number if is_one else _whole_numbers)(1, "codebook_size", size))
        self._set("channels", _whole_numbers(1, "channels", self.channels))
        if self.horizon and self.likelihood == "l2":
            raise ValueError(
                f"horizon must be 0 with likelihood l2, which is a density and no probability; got {self.horizon}; "
                "set it to 0, or take likelihood logistic_mixture or categorical"
            )
        self._set("image_channels", as_int("image_channels", self.image_channels))
        self._set("rotation_trick", bool(self.rotation_trick))
        self._set("commitment_weight", as_number("commitment_weight", self.commitment_weight))
        if not 0 <= self.commitment_weight < math.inf:
            raise ValueError(f"commitment_weight must be finite and at least 0; got {self.commitment_weight}")
        for name in ("decay", "rare_code_threshold"):
            self._set(name, check_share(name, getattr(self, name)))

    def _set(self, name: str, value: Any) -> None:
        """A field as Python's own numbers, as config.json can hold them."""
        object.__setattr__(self, name, value)

    def _check_choices(self) -> None:
        choices = {
            "image_channels": (1, 3),
            "likelihood": ("l2", "categorical", "logistic_mixture"),
            "quantizer": tuple(QUANTIZERS),
            "codebook_update": ("ema", "gradient"),
            "distance": ("euclidean", "cosine"),
            "rotation_trick": (False, True),
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} must be one of {', '.join(map(str, valid))}; got {getattr(self, name)!r}")

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """K of each level, coarse to fine."""
        return (self.codebook_size,) if isinstance(self.codebook_size, int) else self.codebook_size

    @property
    def num_levels(self) -> int:
        return len(self.level_sizes)

    @property
    def image_multiple(self) -> int:
        """Height and width of an image must be multiples of this: the stride of the coarsest level."""
        return 2 ** (len(self.channels) + self.num_levels - 1)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DQAEConfig":
        """From a plain dict, such as a parsed config.json; unknown keys raise ValueError and list the valid ones."""
        valid = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(valid))
        if unknown:
            raise ValueError(f"config keys must be among {', '.join(valid)}; got {', '.join(unknown)}")
        return cls(**values)


def _whole_number(lowest: int, name: str, value: Any) -> int:
    number = as_int(name, value)
    if number < lowest:
        raise ValueError(f"{name} must be at least {lowest}; got {number}")
    return number


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _whole_numbers(lowest: int, name: str, values: Any) -> tuple[int, ...]:
    if not _is_sequence(values):
        raise ValueError(f"{name} must be whole numbers, as in (64, 128); got {values!r}")
    numbers = tuple(_whole_number(lowest, name, value) for value in values)
    if not numbers:
        raise ValueError(f"{name} must have at least one entry; got none")
    return numbers


PRESETS = {
    "small": DQAEConfig(),
    # App. A.4, "Likelihood estimation": two levels, K_top = 256 and K_bot = 128.
    "paper": DQAEConfig(
        likelihood="logistic_mixture",
        codebook_size=(256, 128),
        codebook_dim=64,
        channels=(256, 256),
        num_residual_blocks=4,
        decay=0.99,
    ),
    "tiny": DQAEConfig(num_codebooks=2, codebook_size=8, codebook_dim=4, channels=(8, 16), num_residual_blocks=1),
}
"""Named configurations: `small` learns in minutes on a CPU, `paper` is the paper's own, `tiny` serves tests."""
