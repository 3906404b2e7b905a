"""Intervals through arithmetic of several operands, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.interval import Bounds, Float64, Interval, epsilon, product, rounded, unbounded
from qcompiler.ir import constants, patterns

if TYPE_CHECKING:
    from qcompiler.analysis.intervals import Intervals, Rule

__all__ = ["RULES", "join"]


def _operands(known: Intervals, node: ir.Node) -> tuple[list[Bounds], int | None]:
    """Bounds of every operand on common channels, and the axis of the output these lie along."""
    out_rank = _output_rank(node)
    target: int | None = None
    count = 1
    for value in node.inputs:
        item, rank = known.of(value), patterns.rank(value)
        if item.axis is not None and rank is not None and out_rank is not None:
            target, count = item.axis - rank, item.low.size
            break
    if target is None or out_rank is None:
        return [known.of(value).along(None, 1) for value in node.inputs], None
    return [_along(known, value, target, count) for value in node.inputs], out_rank + target


def _along(known: Intervals, value: ir.Value | None, axis: int, count: int) -> Bounds:
    """Bounds per channel along ``axis`` counted from the end; from the data itself for a constant."""
    array = constants.array(value)
    if array is None:
        rank = patterns.rank(value)
        return known.of(value).along(None if rank is None else rank + axis, count)
    if array.ndim >= -axis and array.shape[axis] == count and array.size:
        others = tuple(i for i in range(array.ndim) if i != array.ndim + axis)
        return array.min(others).astype(np.float64), array.max(others).astype(np.float64)
    return known.of(value).along(None, count)


def _output_rank(node: ir.Node) -> int | None:
    found = patterns.rank(node.outputs[0])
    if found is not None:
        return found
    ranks = [patterns.rank(value) for value in node.inputs]
    return None if not ranks or any(rank is None for rank in ranks) else max(rank for rank in ranks if rank is not None)


def _add(known: Intervals, node: ir.Node) -> Interval:
    operands, axis = _operands(known, node)
    low, high = sum(item[0] for item in operands), sum(item[1] for item in operands)
    magnitude = sum(np.maximum(np.abs(item[0]), np.abs(item[1])) for item in operands)
    if len(operands) > 2:
        slack = epsilon(node.outputs[0]) * len(operands) * np.asarray(magnitude)
        return Interval(np.asarray(low - slack), np.asarray(high + slack), axis)
    return Interval(*rounded(np.asarray(low), np.asarray(high), node.outputs[0]), axis)


def _sub(known: Intervals, node: ir.Node) -> Interval:
    if patterns.reads_twice(node):
        return Interval(np.zeros(1), np.zeros(1))
    (first, second), axis = _operands(known, node)
    return Interval(*rounded(first[0] - second[1], first[1] - second[0], node.outputs[0]), axis)


def _mul(known: Intervals, node: ir.Node) -> Interval:
    (first, second), axis = _operands(known, node)
    low, high = product(first, second)
    if patterns.reads_twice(node):
        low = np.where((first[0] <= 0) & (first[1] >= 0), 0.0, np.maximum(low, 0.0))
    return Interval(*rounded(low, high, node.outputs[0]), axis)


def _div(known: Intervals, node: ir.Node) -> Interval:
    (first, second), axis = _operands(known, node)
    through_zero = (second[0] <= 0) & (second[1] >= 0)
    safe = [np.where(through_zero, 1.0, end) for end in second]
    low, high = product(first, (1.0 / safe[1], 1.0 / safe[0]))
    low, high = np.where(through_zero, -np.inf, low), np.where(through_zero, np.inf, high)
    return Interval(*rounded(low, high, node.outputs[0], 2), axis)


def _pow(known: Intervals, node: ir.Node) -> Interval:
    exponent, base = constants.scalar(node.inputs[1]), known.of(node.inputs[0])
    if exponent == 2:
        ends = base.low**2, base.high**2
        low = np.where((base.low <= 0) & (base.high >= 0), 0.0, np.minimum(*ends))
        return Interval(*rounded(low, np.maximum(*ends), node.outputs[0], 2), base.axis)
    return unbounded()


def join(known: Intervals, node: ir.Node, values: list[ir.Value | None]) -> Interval:
    """The smallest interval that holds every one of ``values``."""
    items = [known.of(value) for value in values]
    first = items[0]
    if (
        all(item.axis == first.axis and item.low.size == first.low.size for item in items)
        and len({patterns.rank(value) for value in (*values, node.outputs[0])}) == 1
    ):
        low, high = np.stack([item.low for item in items]), np.stack([item.high for item in items])
        return Interval(low.min(0), high.max(0), first.axis)
    hulls = [item.hull for item in items]
    return Interval(np.array([min(hull[0] for hull in hulls)]), np.array([max(hull[1] for hull in hulls)]))


def _extremum(pick: Callable[..., Float64]) -> Rule:
    def rule(known: Intervals, node: ir.Node) -> Interval:
        operands, axis = _operands(known, node)
        low, high = (pick([item[end] for item in operands], axis=0) for end in (0, 1))
        return Interval(low, high, axis)

    return rule


def _where(known: Intervals, node: ir.Node) -> Interval:
    return join(known, node, list(node.inputs[1:3]))


RULES: dict[str, Rule] = {
    "Add": _add,
    "Div": _div,
    "Max": _extremum(np.max),
    "Min": _extremum(np.min),
    "Mul": _mul,
    "Pow": _pow,
    "Sub": _sub,
    "Sum": _add,
    "Where": _where,
}
