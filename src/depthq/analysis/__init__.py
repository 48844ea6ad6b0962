"""How much the codes of a sample say, and how much of it they say twice.

It works on the codes of any quantizer, `depthq.Codes` or plain integer arrays, and never needs the model.

    counts = CodeCounts(codes.codebook_sizes)
    for codes in batches:
        counts.update(codes)
    code_entropy(counts).perplexity
    pairwise_mutual_information(counts).mean_pairwise_nats

Names that have moved out, and are found here with a DeprecationWarning:

| name | now in |
| --- | --- |
| `axis_correlation`, `feature_dependence`, `quantile_codes`, `recommend_axis` | `depthq.features` |
| `AxisRecommendation`, `AxisSplit`, `FeatureDependence`, `PairDependence` | `depthq.features` |
| `plot_mutual_information`, `plot_position_entropy`, `plot_usage` | `depthq.report.plots` |
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

from depthq.analysis.blocks import block_interval
from depthq.analysis.bootstrap import Interval, bootstrap_interval
from depthq.analysis.counting import CodeCounts
from depthq.analysis.entropy import CodeEntropy, code_entropy, entropy_nats, position_entropy_nats
from depthq.analysis.mutual_information import (
    MutualInformation,
    mutual_information_nats,
    pairwise_mutual_information,
    shuffled_mutual_information_nats,
)
from depthq.analysis.summary import CodeSummary, summarize_codes
from depthq.analysis.total_correlation import (
    JointEntropyBounds,
    joint_entropy_bounds,
    joint_entropy_nats,
    total_correlation_nats,
)

__all__ = [
    "CodeCounts",
    "CodeEntropy",
    "CodeSummary",
    "Interval",
    "JointEntropyBounds",
    "MutualInformation",
    "block_interval",
    "bootstrap_interval",
    "code_entropy",
    "entropy_nats",
    "joint_entropy_bounds",
    "joint_entropy_nats",
    "mutual_information_nats",
    "pairwise_mutual_information",
    "position_entropy_nats",
    "shuffled_mutual_information_nats",
    "summarize_codes",
    "total_correlation_nats",
]

_MOVED_TO = dict.fromkeys(
    [
        "AxisRecommendation",
        "AxisSplit",
        "FeatureDependence",
        "PairDependence",
        "axis_correlation",
        "feature_dependence",
        "quantile_codes",
        "recommend_axis",
    ],
    "depthq.features",
) | dict.fromkeys(["plot_mutual_information", "plot_position_entropy", "plot_usage"], "depthq.report.plots")

if not TYPE_CHECKING:  # to a type checker these names are gone

    def __getattr__(name: str) -> object:
        if name not in _MOVED_TO:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = _MOVED_TO[name]
        warnings.warn(f"depthq.analysis.{name} has moved: import it from {home}", DeprecationWarning, stacklevel=2)
        return getattr(import_module(home), name)
