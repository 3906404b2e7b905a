"""Intervals through pooling and reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.interval import Interval, epsilon, unbounded
from qcompiler.ir import constants, patterns

if TYPE_CHECKING:
    from qcompiler.analysis.intervals import Intervals, Rule

__all__ = ["RULES", "averaged", "lowered"]

_MANY = 1 << 20
"""Elements assumed in a mean over dimensions that are not known: decides how much rounding is granted."""


def _same(known: Intervals, node: ir.Node) -> Interval:
    """A maximum is one of the elements; padding never wins."""
    return known.of(node.inputs[0])


def lowered(interval: Interval, axis: int | None) -> Interval:
    """The interval with its channels along another axis, or without channels."""
    if interval.axis is None or axis is None:
        low, high = interval.hull
        return Interval(np.array([low]), np.array([high]))
    return Interval(interval.low, interval.high, axis)


def averaged(interval: Interval, value: ir.Value, count: int, *, with_zero: bool) -> Interval:
    """The mean of at most ``count`` elements: in their hull, but for the rounding of the sum and the division."""
    low, high = interval.low, interval.high
    if with_zero:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    eps = epsilon(value) * (count + 2)
    return Interval(low - eps * np.abs(low), high + eps * np.abs(high), interval.axis)


def _average_pool(known: Intervals, node: ir.Node) -> Interval:
    kernel = patterns.integers(node, "kernel_shape") or ()
    automatic = node.attributes.get("auto_pad")
    padded = any(patterns.integers(node, "pads") or ()) or (
        automatic is not None and automatic.as_string() not in ("NOTSET", "VALID")
    )
    counted = padded and bool(patterns.integer(node, "count_include_pad", 0))
    return averaged(known.of(node.inputs[0]), node.outputs[0], math.prod(kernel), with_zero=counted)


def _global_average_pool(known: Intervals, node: ir.Node) -> Interval:
    shape = patterns.static_shape(node.inputs[0])
    sizes = (shape or (None, None, None))[2:]
    count = math.prod(size for size in sizes if size is not None) if None not in sizes else _MANY
    return averaged(known.of(node.inputs[0]), node.outputs[0], count, with_zero=False)


def _axes(node: ir.Node, rank: int | None) -> list[int] | None:
    """Axes of a reduction (attribute or second input), never negative; ``None`` where unknown; empty means all."""
    found: Sequence[int] | None = patterns.integers(node, "axes")
    if found is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constants.array(node.inputs[1])
        if array is None:
            return None
        found = [int(axis) for axis in array.ravel()]
    if found is None:
        return []
    if rank is None:
        return None
    return [axis % rank for axis in found]


def _reduced(known: Intervals, node: ir.Node) -> tuple[Interval, int | None]:
    """The operand's interval as the reduction leaves its channels, and how many elements one result takes in."""
    data, shape = known.of(node.inputs[0]), patterns.static_shape(node.inputs[0])
    axes = _axes(node, None if shape is None else len(shape))
    if shape is None or axes is None:
        return lowered(data, None), None
    axes = axes or list(range(len(shape)))
    sizes = [shape[axis] for axis in axes]
    count = None if any(size is None for size in sizes) else math.prod(size for size in sizes if size is not None)
    if data.axis is None or data.axis in axes:
        return lowered(data, None), count
    gone = 0 if patterns.integer(node, "keepdims", 1) else sum(axis < data.axis for axis in axes)
    return lowered(data, data.axis - gone), count


def _reduce_same(known: Intervals, node: ir.Node) -> Interval:
    return _reduced(known, node)[0]


def _reduce_mean(known: Intervals, node: ir.Node) -> Interval:
    data, count = _reduced(known, node)
    return averaged(data, node.outputs[0], count or _MANY, with_zero=False)


def _reduce_sum(known: Intervals, node: ir.Node) -> Interval:
    data, count = _reduced(known, node)
    if count is None:
        return unbounded()
    slack = epsilon(node.outputs[0]) * (count + 1)
    low, high = data.low * count, data.high * count
    return Interval(low - slack * np.abs(low), high + slack * np.abs(high), data.axis)


RULES: dict[str, Rule] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _same,
    "MaxPool": _same,
    "ReduceMax": _reduce_same,
    "ReduceMean": _reduce_mean,
    "ReduceMin": _reduce_same,
    "ReduceSum": _reduce_sum,
}
