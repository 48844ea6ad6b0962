"""Entropy of codes, from their counts (Sec. 4.2)."""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from depthq.analysis.counting import CodeArray, CodeCounts, as_counts
from depthq.units import nats_to_bits

EntropyEstimator = Literal["plugin", "miller_madow"]

# Samples per code below which an estimate is about 0.1 nats or more from the truth.
SAMPLES_PER_CODE = {"plugin": 5, "miller_madow": 2}


@dataclass(frozen=True)
class CodeEntropy:
    """How much each codebook of a level says, and how evenly its codes are used; one entry per codebook."""

    level: int
    num_samples: int
    """Positions counted, over all images."""
    entropy_nats: Tensor
    """Entropy of one code, 0..log K (a corrected estimate may lie slightly above)."""
    usage: Tensor
    """Share of the K codes that occur at all, 0..1."""

    @property
    def entropy_bits(self) -> Tensor:
        return nats_to_bits(self.entropy_nats)

    @property
    def perplexity(self) -> Tensor:
        """exp(entropy in nats): the number of codes effectively used, 1..K."""
        return self.entropy_nats.exp()


def entropy_nats(counts: CodeArray, estimator: EntropyEstimator = "plugin") -> Tensor:
    """Entropy of the distribution that `counts` were drawn from.

    The plug-in estimate is the entropy of the shares n / N; from a finite sample it is too low, by (K - 1) /
    (2 N) to first order. Miller-Madow adds that back, with K the number of codes that occur.

    Args:
        counts: integers (..., K), at least one count in each row.
        estimator: "plugin" or "miller_madow".

    Returns:
        float64 (...), in nats.

    Raises:
        ValueError: If counts are not integers of at least 0, a row is without any, or the estimator is unknown.
    """
    check_estimator(estimator, SAMPLES_PER_CODE)
    counts = as_counts(counts)
    total = counts.sum(-1)
    if counts.numel() == 0 or bool((total == 0).any()):
        raise ValueError("counts must hold at least one count in each row; got a row without any")
    entropy = torch.special.entr(counts.double() / total[..., None]).sum(-1)
    if estimator == "miller_madow":
        entropy = entropy + ((counts > 0).sum(-1) - 1).double() / (2 * total)
    return entropy


def code_entropy(counts: CodeCounts, level: int = 0, estimator: EntropyEstimator = "plugin") -> CodeEntropy:
    """Entropy, perplexity and usage of each codebook of a level (Sec. 5.2).

    Warns:
        UserWarning: If there are too few samples per code, with the bias to expect and the corrected figure.
    """
    marginal = counts.marginal(level)
    num_samples = int(marginal[0].sum())
    _warn_if_undersampled(marginal, estimator, "code_entropy", "positions")
    sizes = torch.tensor(counts.codebook_sizes[level], device=marginal.device)
    usage = (marginal > 0).sum(1).double() / sizes
    return CodeEntropy(level, num_samples, entropy_nats(marginal, estimator), usage)


def position_entropy_nats(counts: CodeCounts, level: int = 0, estimator: EntropyEstimator = "plugin") -> Tensor:
    """Entropy of each codebook at each position, over images (Fig. 3, left, shows its mean over codebooks).

    Returns:
        float64 (M, *positions), in nats.

    Warns:
        UserWarning: If there are too few images per code, with the bias to expect and the corrected figure.
    """
    per_position = counts.per_position(level)
    _warn_if_undersampled(per_position, estimator, "position_entropy_nats", "images")
    return entropy_nats(per_position, estimator)


def check_estimator(estimator: str, known) -> None:
    if estimator not in known:
        raise ValueError(f"estimator must be one of {', '.join(known)}; got {estimator!r}")


def _warn_if_undersampled(counts: Tensor, estimator: str, asked: str, unit: str) -> None:
    check_estimator(estimator, SAMPLES_PER_CODE)
    total, used = counts.sum(-1), (counts > 0).sum(-1)
    if int(total.min()) < 2:
        warnings.warn(
            f"{asked} has only 1 of the {unit}, which cannot show any entropy; count more images",
            UserWarning,
            stacklevel=3,
        )
    elif bool((total < SAMPLES_PER_CODE[estimator] * used).any()):
        bias = float(((used - 1) / (2 * total)).max())
        corrected = float(entropy_nats(counts, "miller_madow").mean())
        warnings.warn(
            f"{asked} has only {int(total.min())} {unit} for up to {int(used.max())} codes in use: plug-in "
            f"entropy is too low by at least about (K - 1) / (2 N) = {bias:.3g} nats; the mean of all is "
            f"{corrected:.4g} nats after Miller-Madow correction; count more images",
            UserWarning,
            stacklevel=3,
        )
