"""How much a model loses when a group of its nodes follows a format: metrics behind one interface."""

from qcompiler.analysis.sensitivity.around import around
from qcompiler.analysis.sensitivity.metric import Measured, Metric
from qcompiler.analysis.sensitivity.pairs import pair_choices
from qcompiler.analysis.sensitivity.run import METRICS, estimate, metric_named, sensitivity
from qcompiler.analysis.sensitivity.study import Alternative, Choice, Cost, Edge, Sensitivity, Study

__all__ = [
    "METRICS",
    "Alternative",
    "Choice",
    "Cost",
    "Edge",
    "Measured",
    "Metric",
    "Sensitivity",
    "Study",
    "around",
    "estimate",
    "metric_named",
    "pair_choices",
    "sensitivity",
]
