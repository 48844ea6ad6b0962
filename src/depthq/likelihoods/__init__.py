"""Likelihoods, p(image | decoder output): L2, categorical, mixture of discretized logistics (App. A.4).

| name               | log_prob of    | parameters (RGB) | what it assumes                          |
| ------------------ | -------------- | ---------------- | ---------------------------------------- |
| `l2`               | a density      | 3                | errors of one size everywhere            |
| `categorical`      | 8-bit values   | 768              | nothing, not even that 127 is near 128   |
| `logistic_mixture` | 8-bit values   | 100              | near values go together, and so do R G B |
"""

from depthq.likelihoods.base import Likelihood
from depthq.likelihoods.categorical import CategoricalLikelihood
from depthq.likelihoods.l2 import L2Likelihood
from depthq.likelihoods.logistic_mixture import LogisticMixtureLikelihood
from depthq.pixels import denormalize, normalize

__all__ = [
    "LIKELIHOODS",
    "CategoricalLikelihood",
    "L2Likelihood",
    "Likelihood",
    "LogisticMixtureLikelihood",
    "denormalize",
    "make_likelihood",
    "normalize",
]

LIKELIHOODS = {
    "l2": L2Likelihood,
    "categorical": CategoricalLikelihood,
    "logistic_mixture": LogisticMixtureLikelihood,
}


def make_likelihood(name: str, image_channels: int) -> Likelihood:
    """The likelihood called `name`, a key of `LIKELIHOODS`, for images of 1 or 3 channels.

    Raises:
        ValueError: If there is no such likelihood, or `image_channels` is neither 1 nor 3.
    """
    if name not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {', '.join(LIKELIHOODS)}; got {name!r}")
    return LIKELIHOODS[name](image_channels)
