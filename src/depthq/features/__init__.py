"""Continuous features of any network, before anything quantizes them: what depends on what, and where to cut.

How well a quantizer trained after the fact describes them, and the networks to take them from, are modules of their
own: `depthq.features.density`, `depthq.features.backbones`.
"""

from depthq.features.axis import AxisRecommendation, AxisSplit, recommend_axis
from depthq.features.dependence import (
    FeatureDependence,
    PairDependence,
    axis_correlation,
    feature_dependence,
    quantile_codes,
)

__all__ = [
    "AxisRecommendation",
    "AxisSplit",
    "FeatureDependence",
    "PairDependence",
    "axis_correlation",
    "feature_dependence",
    "quantile_codes",
    "recommend_axis",
]
