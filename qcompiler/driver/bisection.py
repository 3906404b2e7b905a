"""``--bisect``: quality after every pass, decisions not yet materialised included."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from qcompiler.analysis.metrics import Metric
    from qcompiler.calibration.data import Dataset
    from qcompiler.pipeline.instruments.bisect import Bisect, Measurement

__all__ = ["Fall", "bisect_instrument", "worst_fall"]

_SAMPLES = 16
"""Enough to see a pass break a model; every pass costs as many runs."""


@dataclass(frozen=True, slots=True)
class Fall:
    """The pass after which the figure fell most."""

    text: str
    before: float
    after: float


def bisect_instrument(baseline: Path, dataset: Dataset, metric: Metric) -> Bisect:
    """An instrument that measures ``metric`` against the float model on the first samples of ``dataset``."""
    from qcompiler.analysis.quality import compare
    from qcompiler.pipeline.instruments.bisect import Bisect

    few = dataset.subset(range(min(_SAMPLES, len(dataset))))

    def measure(model: ir.Model) -> float:
        value = compare(baseline, _as_it_will_be(model), few, metric=metric).value
        return float("nan") if value is None else value

    return Bisect(measure, higher_is_better=metric.higher_is_better)


def worst_fall(measurements: Sequence[Measurement], metric: Metric) -> Fall | None:
    """The pass after which the figure fell most; ``None`` where it never fell.

    Decibels are compared as shares of noise: from 25 to 3 dB a model breaks, from 140 to 25 dB it is quantized.
    """
    steps = list(itertools.pairwise(measurements))
    losses = [_loss(after.figure, metric) - _loss(before.figure, metric) for before, after in steps]
    if not losses or max(losses) <= 0:
        return None
    before, after = steps[losses.index(max(losses))]
    return Fall(after.text, before.figure, after.figure)


def _loss(figure: float, metric: Metric) -> float:
    if figure != figure:  # not a number: nothing is worse
        return 1e300
    if metric.unit == "dB":
        return float(10 ** (-figure / 10))
    return -figure if metric.higher_is_better else figure


def _as_it_will_be(model: ir.Model) -> ir.Model:
    """The model with its decisions materialised; those without parameters say nothing about numbers yet."""
    from qcompiler.ir.copies import shared_copy
    from qcompiler.passes.place.simulate import materialized
    from qcompiler.quant import state

    placed = any(node.op_type == "DequantizeLinear" for node in model.graph)
    if placed or not state.has_state(model.graph):
        return model
    copy = shared_copy(model)
    for value, quant in list(state.quantized_values(copy.graph)):
        if quant.params is None:
            state.set_value_quant(value, None)
    for node in copy.graph:
        for index in range(len(node.inputs)):
            own = state.own_edge_quant(node, index)
            if isinstance(own, state.TensorQuant) and own.params is None:
                state.set_edge_quant(node, index, state.FLOAT)
    return materialized(copy)
