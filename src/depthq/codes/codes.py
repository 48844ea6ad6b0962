"""Codes: integers at positions of any rank (images, sequences, video), one tensor per level, coarse to fine.

They are the waist of the package: models write them, analysis and files read them, and neither side needs to know
the other.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """The codes of a batch of images, or of sequences, video, ...: whatever has positions.

    Shapes: B images, M codebooks, and the positions of a level: (H, W) of an image, (T,) of a sequence, (T, H, W) of
    video, () of a single vector. All levels have positions of the same rank; level 0 is the coarsest.

    Args:
        levels: One int64 tensor (B, M, *positions) per level; codes of codebook m lie in [0, K_m).
        codebook_sizes: Per level, the sizes K_m of its M codebooks; M may be 0.

    Raises:
        ValueError: If shapes, dtypes or ranges do not fit together.

    Example:
        >>> codes = Codes(levels=(torch.zeros(2, 5, 8, 8, dtype=torch.int64),), codebook_sizes=((128,) * 5,))
        >>> codes.num_bits()  # 64 positions x 5 codebooks x 7 bits
        2240.0
        >>> speech = Codes(levels=(torch.zeros(2, 4, 100, dtype=torch.int64),), codebook_sizes=((1024,) * 4,))
        >>> speech.num_bits()  # 100 frames x 4 codebooks x 10 bits
        4000.0
    """

    levels: tuple[Tensor, ...]
    codebook_sizes: tuple[tuple[int, ...], ...]

    def __post_init__(self):
        object.__setattr__(self, "levels", tuple(self.levels))
        object.__setattr__(self, "codebook_sizes", tuple(tuple(sizes) for sizes in self.codebook_sizes))
        if not self.levels or len(self.levels) != len(self.codebook_sizes):
            raise ValueError(
                "levels must hold one map per entry of codebook_sizes and at least one; "
                f"got {len(self.levels)} and {len(self.codebook_sizes)}"
            )
        for level, (codes, sizes) in enumerate(zip(self.levels, self.codebook_sizes, strict=True)):
            check_codes(codes, sizes, name=f"levels[{level}]")
            if codes.dim() != self.levels[0].dim():
                raise ValueError(
                    f"levels must have positions of the same rank; got shape {tuple(codes.shape)} in level {level} "
                    f"and {tuple(self.levels[0].shape)} in level 0"
                )
            if codes.shape[0] != self.levels[0].shape[0]:
                raise ValueError(
                    f"levels must hold the same number of images; got {codes.shape[0]} in level {level} "
                    f"and {self.levels[0].shape[0]} in level 0"
                )

    @classmethod
    def unchecked(cls, levels: tuple[Tensor, ...], codebook_sizes: tuple[tuple[int, ...], ...]) -> "Codes":
        """Codes fresh from a quantizer, right by construction: looking would make the host wait for a GPU."""
        codes = object.__new__(cls)
        object.__setattr__(codes, "levels", levels)
        object.__setattr__(codes, "codebook_sizes", codebook_sizes)
        return codes

    def __len__(self) -> int:
        return self.levels[0].shape[0]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Per level, (M, *positions): the shape of one image's codes."""
        return tuple(tuple(codes.shape[1:]) for codes in self.levels)

    def __getitem__(self, images: slice) -> "Codes":
        """The codes of a slice of the images."""
        if not isinstance(images, slice):
            raise TypeError(f"images must be a slice; got {type(images).__name__}; for one image use codes[i : i + 1]")
        return Codes(tuple(codes[images] for codes in self.levels), self.codebook_sizes)

    def to(self, device: torch.device | str) -> "Codes":
        return Codes(tuple(codes.to(device) for codes in self.levels), self.codebook_sizes)

    def num_bits(self) -> float:
        """Bits per image under the uniform prior: sum over levels of positions x sum_m log2 K_m."""
        return float(
            sum(
                math.prod(codes.shape[2:]) * sum(math.log2(size) for size in sizes)
                for codes, sizes in zip(self.levels, self.codebook_sizes, strict=True)
            )
        )

    @staticmethod
    def cat(parts: Iterable["Codes"]) -> "Codes":
        """Codes of all images of `parts`, in order; all parts must have the same codebooks and positions."""
        parts = list(parts)
        if len({part.codebook_sizes for part in parts}) != 1:
            raise ValueError("parts must be non-empty and have the same codebook_sizes; got different or no parts")
        if len({part.shapes for part in parts}) != 1:
            raise ValueError(f"parts must have the same positions; got {sorted({part.shapes for part in parts})}")
        levels = zip(*(part.levels for part in parts), strict=True)
        return Codes(tuple(torch.cat(maps) for maps in levels), parts[0].codebook_sizes)


def check_codes(codes: Tensor, codebook_sizes: Sequence[int], *, name: str = "codes") -> None:
    """Raise ValueError unless `codes` is an int64 tensor (B, M, ...) with codes of codebook m in [0, K_m)."""
    if codes.dtype != torch.int64:
        raise ValueError(f"{name} must be int64; got {codes.dtype}; convert with .long()")
    if codes.dim() < 2 or codes.shape[1] != len(codebook_sizes):
        raise ValueError(
            f"{name} must be (B, M, ...) with M = {len(codebook_sizes)} codebooks on axis 1; "
            f"got shape {tuple(codes.shape)}"
        )
    if codes.numel() == 0:
        return
    dims = [axis for axis in range(codes.dim()) if axis != 1]
    lowest, highest = codes.amin(dims).tolist(), codes.amax(dims).tolist()
    for codebook, (low, high, size) in enumerate(zip(lowest, highest, codebook_sizes, strict=True)):
        if low < 0 or high >= size:
            raise ValueError(
                f"{name} of codebook {codebook} must lie in [0, {size}); got {low if low < 0 else high}; "
                + (
                    "-1 marks a masked position: pass the mask to decode, or count valid positions alone: "
                    "codes.movedim(1, -1)[mask]"
                    if low == -1
                    else "were they made by another model, or is K larger?"
                )
            )
