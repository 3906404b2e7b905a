"""Sound interval analysis: bounds of every tensor, per channel where channels exist, from weights and input ranges.

One sweep in the order of the graph. Each operator has a rule; an operator without one, a rule that cannot read its
operands, and every output of If, Loop and Scan give an unbounded interval: not knowing is always sound. What the
result proves, it proves for every input within the declared range, not for the samples somebody had.

    known = intervals.analyse(model, low=-1.0, high=1.0)
    known.of(value).low                         # [C], along known.of(value).axis
    known.constant_channels(value)              # channels that can hold one number only, and that number
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis import (
    interval_activation,
    interval_elementwise,
    interval_linear,
    interval_pooling,
    interval_structure,
)
from qcompiler.analysis.interval import Float64, Interval, epsilon, settled, unbounded
from qcompiler.ir import constants, patterns
from qcompiler.ir.operators import STANDARD_DOMAINS

__all__ = ["Interval", "Intervals", "Rule", "analyse"]

Rule: TypeAlias = "Callable[[Intervals, ir.Node], Interval | Sequence[Interval]]"


class Intervals:
    """What is known about each value; grows as nodes are visited in topological order.

    Args:
        graph: The graph whose inputs are declared.
        low: Lower bound of every floating-point graph input.
        high: Upper bound of every floating-point graph input.
        ranges: Bounds of single inputs by name: numbers, or one per channel along axis 1; they win over the others.
        unknown: Operator types to treat as unknown, for instance to save the time of reading their weights.
    """

    def __init__(
        self,
        graph: ir.Graph,
        *,
        low: float = -np.inf,
        high: float = np.inf,
        ranges: Mapping[str, tuple[float | Sequence[float], float | Sequence[float]]] | None = None,
        unknown: Collection[str] = (),
    ) -> None:
        self._known: dict[ir.Value, Interval] = {}
        self._unknown = frozenset(unknown)
        for value in graph.inputs:
            dtype = value.dtype
            declared = (ranges or {}).get(value.name or "")
            if declared is not None:
                self._known[value] = _declared(*declared)
            elif dtype is not None and dtype.is_floating_point():
                self._known[value] = _declared(low, high)

    def of(self, value: ir.Value | None) -> Interval:
        """The interval of a value; of a constant, the range of its data."""
        if value is None:
            return unbounded()
        found = self._known.get(value)
        if found is None:
            array = constants.array(value)
            found = unbounded() if array is None else _range(array)
            if array is not None:
                self._known[value] = found
        return found

    def constant_channels(self, value: ir.Value) -> tuple[NDArray[np.intp], Float64]:
        """Indices of the channels (along ``of(value).axis``) proven to hold one number, and those numbers."""
        found = self.of(value)
        if found.axis is None:
            return np.zeros(0, np.intp), np.zeros(0)
        indices = np.flatnonzero(found.constant())
        return indices, found.low[indices]

    def visit(self, node: ir.Node) -> None:
        """Compute the outputs of ``node`` from what is known about its inputs; again, if it was visited before."""
        rule = _RULES.get(node.op_type) if node.domain in STANDARD_DOMAINS else _FOREIGN.get(node.op_type)
        if rule is None or node.op_type in self._unknown:
            result: Interval | Sequence[Interval] = unbounded()
        else:
            with np.errstate(all="ignore"):  # infinite ends: what becomes NaN is settled to unbounded
                result = rule(self, node)
        results = [result] if isinstance(result, Interval) else result
        for value, item in zip(node.outputs, results, strict=False):
            self._known[value] = settled(item, value)


def analyse(
    model: ir.Model,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    ranges: Mapping[str, tuple[float | Sequence[float], float | Sequence[float]]] | None = None,
) -> Intervals:
    """Intervals of the main graph of ``model``, whose nodes are in order; arguments as for ``Intervals``."""
    known = Intervals(model.graph, low=low, high=high, ranges=ranges)
    for node in model.graph:
        known.visit(node)
    return known


def _declared(low: float | Sequence[float], high: float | Sequence[float]) -> Interval:
    ends = np.atleast_1d(np.asarray(low, np.float64)), np.atleast_1d(np.asarray(high, np.float64))
    count = max(ends[0].size, ends[1].size)
    return Interval(np.resize(ends[0], count), np.resize(ends[1], count), 1 if count > 1 else None)


def _range(array: NDArray[Any]) -> Interval:
    if array.size == 0 or array.dtype.kind not in "fiub":
        return unbounded()
    low, high = float(array.min()), float(array.max())
    return unbounded() if np.isnan(low) or np.isnan(high) else Interval(np.array([low]), np.array([high]))


# -- weighted sums -----------------------------------------------------------------------------------------------


def _bias(known: Intervals, value: ir.Value | None, count: int, axis: int) -> Interval | None:
    """Bounds of an added operand along ``axis``: of a constant, each channel's own."""
    if value is None:
        return None
    array = constants.array(value)
    if array is not None and array.ndim and array.shape[-1] == count:
        rows = array.reshape(-1, count).astype(np.float64)
        return Interval(rows.min(0), rows.max(0), axis)
    found = known.of(value)
    rank = patterns.rank(value)
    return Interval(found.low, found.high, axis) if rank is not None and found.axis == rank - 1 else found


def _convolution(known: Intervals, node: ir.Node) -> Interval:
    bias = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias_shape = patterns.static_shape(node.inputs[2])
        bias = _bias(known, node.inputs[2], (bias_shape or (None,))[0] or 0, 0)
    function = interval_linear.conv if node.op_type == "Conv" else interval_linear.conv_transpose
    return function(node, known.of(node.inputs[0]), bias)


def _gemm(known: Intervals, node: ir.Node) -> Interval:
    weight, data = constants.array(node.inputs[1]), known.of(node.inputs[0])
    alpha, beta = patterns.number(node, "alpha", 1.0), patterns.number(node, "beta", 1.0)
    if weight is None or alpha == 0:
        return unbounded()
    if patterns.integer(node, "transB", 0):
        weight = weight.T
    if patterns.integer(node, "transA", 0):
        data = Interval(*data.along(None, 1))
    bias = _bias(known, node.inputs[2], weight.shape[1], 1) if len(node.inputs) > 2 else None
    if bias is not None and beta != 1.0:
        ends = np.sort(np.stack([bias.low * beta, bias.high * beta]), 0)
        bias = Interval(ends[0], ends[1], bias.axis)
    return interval_linear.matmul_constant(weight, data, 1, bias, node.outputs[0], alpha)


def _matmul(known: Intervals, node: ir.Node) -> Interval:
    weight, data = constants.array(node.inputs[1]), known.of(node.inputs[0])
    rank = patterns.rank(node.inputs[0])
    if weight is not None and weight.ndim == 2 and rank is not None and rank >= 2:
        return interval_linear.matmul_constant(weight, data, rank - 1, None, node.outputs[0])
    return _product_sum(known, node)


def _product_sum(known: Intervals, node: ir.Node) -> Interval:
    """A product of two tensors, from their hulls and the length of the sum."""
    shapes = [patterns.static_shape(value) for value in node.inputs[:2]]
    depth = shapes[0][-1] if shapes[0] else None
    if depth is None and shapes[1] and len(shapes[1]) > 1:
        depth = shapes[1][-2]
    if depth is None:
        return unbounded()
    first, second = (known.of(value).hull for value in node.inputs[:2])
    with np.errstate(invalid="ignore"):
        ends = np.nan_to_num([a * b * depth for a in first for b in second], nan=0.0, posinf=np.inf, neginf=-np.inf)
    slack = epsilon(node.outputs[0]) * (depth + 2)
    low, high = float(ends.min()), float(ends.max())
    return Interval(np.array([low - slack * abs(low)]), np.array([high + slack * abs(high)]))


def _batch_normalization(known: Intervals, node: ir.Node) -> Interval:
    return interval_linear.batch_normalization(node, known.of(node.inputs[0]))


_RULES: dict[str, Rule] = {
    **interval_activation.RULES,
    **interval_elementwise.RULES,
    **interval_pooling.RULES,
    **interval_structure.RULES,
    "BatchNormalization": _batch_normalization,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
}

_FOREIGN: dict[str, Rule] = {
    name: interval_activation.RULES[target]
    for name, target in (("SimplifiedLayerNormalization", "RMSNormalization"), ("Gelu", "Gelu"))
}
"""Operators of other domains with the meaning of a standard one."""
