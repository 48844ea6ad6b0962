"""p(codes): what codes cost, and codes drawn at random. Uniform, counted, and a transformer that is trained."""

from depthq.priors.base import CodePrior, Grid, Group, Steps, grids_of
from depthq.priors.counted import CountedPrior
from depthq.priors.tiles import Tiles, cut, nll_nats_of_tiles, tiles_of
from depthq.priors.transformer import Factorization, TransformerPrior
from depthq.priors.uniform import UniformPrior, uniform_nll_nats

__all__ = [
    "CodePrior",
    "CountedPrior",
    "Factorization",
    "Grid",
    "Group",
    "Steps",
    "Tiles",
    "TransformerPrior",
    "UniformPrior",
    "cut",
    "grids_of",
    "nll_nats_of_tiles",
    "tiles_of",
    "uniform_nll_nats",
]
