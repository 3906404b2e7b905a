"""Intervals through functions of one operand: activations, comparisons, normalisations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.interval import Float64, Interval, epsilon, rounded, unbounded
from qcompiler.ir import constants, patterns

if TYPE_CHECKING:
    from qcompiler.analysis.intervals import Intervals, Rule

__all__ = ["RULES"]

_FUNCTION_ROUNDINGS = 8
"""Roundings granted to an approximated function: runtimes use polynomials good to a few last places of 1."""


def _monotone(
    function: Callable[[Float64], Float64], floor: float = -np.inf, ceiling: float = np.inf, roundings: int = 0
) -> Rule:
    """A rule for a function that never falls, with its codomain; ``roundings`` 0 for one computed exactly.

    More than one rounding stands for an approximation, whose error is also one relative to 1: ONNX Runtime's Sigmoid
    of -4 is off by 20 units of its own last place, and its Tanh can exceed 1 by one.
    """

    def rule(known: Intervals, node: ir.Node) -> Interval:
        data = known.of(node.inputs[0])
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            low, high = function(data.low), function(data.high)
        if roundings:
            low, high = rounded(low, high, node.outputs[0], roundings)
        if roundings > 1:
            slack = roundings * epsilon(node.outputs[0])
            low, high = low - slack, high + slack
            return Interval(
                np.clip(low, floor * (1 + slack), np.inf), np.clip(high, -np.inf, ceiling * (1 + slack)), data.axis
            )
        return Interval(np.clip(low, floor, ceiling), np.clip(high, floor, ceiling), data.axis)

    return rule


def _sigmoid(x: Float64) -> Float64:
    return 1.0 / (1.0 + np.exp(-x))


def _erf(x: Float64) -> Float64:
    return np.array([math.erf(item) for item in x])


def _clip(known: Intervals, node: ir.Node) -> Interval:
    data = known.of(node.inputs[0])
    low, high = data.low, data.high
    bounds: list[tuple[float, float]] = []
    for index, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        if len(node.inputs) > index and node.inputs[index] is not None:
            bounds.append(known.of(node.inputs[index]).hull)
        else:
            bounds.append((patterns.number(node, name, default),) * 2)
    (floor_low, floor_high), (ceiling_low, ceiling_high) = bounds
    low = np.minimum(np.maximum(low, floor_low), ceiling_low)
    high = np.minimum(np.maximum(high, floor_high), ceiling_high)
    return Interval(low, high, data.axis)


def _hard_sigmoid(known: Intervals, node: ir.Node) -> Interval:
    data = known.of(node.inputs[0])
    alpha, beta = patterns.number(node, "alpha", 0.2), patterns.number(node, "beta", 0.5)
    ends = np.sort(np.stack([data.low * alpha, data.high * alpha]), 0) if alpha else np.zeros((2, data.low.size))
    slack = 2 * epsilon(node.outputs[0]) * (np.abs(ends) + abs(beta))
    return Interval(np.clip(ends[0] + beta - slack[0], 0, 1), np.clip(ends[1] + beta + slack[1], 0, 1), data.axis)


def _dipping(function: Callable[[Float64], Float64], at: float, floor: float, dead: float) -> Rule:
    """A rule for a function that falls to ``floor`` at ``at`` and rises beyond (HardSwish, GELU, Mish).

    Below ``dead`` it is exactly zero in floating point; ``-inf`` where that is not so.
    """

    def rule(known: Intervals, node: ir.Node) -> Interval:
        data = known.of(node.inputs[0])
        low, high = np.maximum(data.low, -1e30), np.minimum(data.high, 1e30)
        ends = np.stack([function(low), function(high)])
        slack = _FUNCTION_ROUNDINGS * epsilon(node.outputs[0]) * (np.abs(ends).max(0) + 1.0)
        bottom = np.where((low <= at) & (high >= at), floor, ends.min(0)) - slack
        top = np.where(np.isinf(data.high), np.inf, np.maximum(ends.max(0) + slack, slack))
        is_dead = data.high <= dead
        return Interval(np.where(is_dead, 0.0, bottom), np.where(is_dead, 0.0, top), data.axis)

    return rule


def _hard_swish(x: Float64) -> Float64:
    return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))


def _gelu(x: Float64) -> Float64:
    return np.asarray(x * 0.5 * (1 + _erf(x / np.sqrt(2))))


def _leaky_relu(known: Intervals, node: ir.Node) -> Interval:
    data, alpha = known.of(node.inputs[0]), patterns.number(node, "alpha", 0.01)
    if not 0 <= alpha <= 1:
        return unbounded()
    ends = [np.where(end < 0, end * alpha, end) if alpha else np.maximum(end, 0.0) for end in (data.low, data.high)]
    return Interval(*rounded(ends[0], ends[1], node.outputs[0], 2), data.axis)


def _neg(known: Intervals, node: ir.Node) -> Interval:
    data = known.of(node.inputs[0])
    return Interval(-data.high, -data.low, data.axis)


def _abs(known: Intervals, node: ir.Node) -> Interval:
    data = known.of(node.inputs[0])
    ends = np.abs(np.stack([data.low, data.high]))
    return Interval(np.where((data.low <= 0) & (data.high >= 0), 0.0, ends.min(0)), ends.max(0), data.axis)


def _within(low: float, high: float) -> Rule:
    """A rule for an operator whose results lie in a fixed range, whatever comes in."""

    def rule(_known: Intervals, _node: ir.Node) -> Interval:
        return Interval(np.array([low]), np.array([high]))

    return rule


def _normalised(_known: Intervals, node: ir.Node) -> Interval:
    """LayerNormalization, RMSNormalization: no element of a row of ``n`` exceeds ``sqrt(n)`` root mean squares.

    True of the function; the slack of 1 % covers rounding of rows that are not pathological.
    """
    scale = constants.array(node.inputs[1])
    rank = patterns.rank(node.inputs[0]) or patterns.rank(node.outputs[0])
    if scale is None or rank is None or patterns.integer(node, "axis", -1) not in (-1, rank - 1) or scale.ndim != 1:
        return unbounded()
    reach = 1.01 * np.sqrt(scale.size) * np.abs(np.asarray(scale, np.float64))
    shift = np.zeros(scale.size)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = constants.array(node.inputs[2])
        if bias is None:
            return unbounded()
        shift = np.asarray(bias, np.float64)
    return Interval(shift - reach, shift + reach, rank - 1)


def _cast(known: Intervals, node: ir.Node) -> Interval:
    data, dtype = known.of(node.inputs[0]), node.outputs[0].dtype
    if dtype is None or dtype == ir.DataType.BOOL:
        return Interval(np.zeros(1), np.ones(1)) if dtype is not None else unbounded()
    if dtype.is_integer():
        return Interval(np.trunc(data.low), np.trunc(data.high), data.axis)
    return Interval(*rounded(data.low, data.high, node.outputs[0]), data.axis)


_BOOLEAN = _within(0.0, 1.0)

RULES: dict[str, Rule] = {
    "Abs": _abs,
    "And": _BOOLEAN,
    "Cast": _cast,
    "Ceil": _monotone(np.ceil),
    "Clip": _clip,
    "Cos": _within(-1.0, 1.0),
    "Equal": _BOOLEAN,
    "Erf": _monotone(_erf, -1.0, 1.0, _FUNCTION_ROUNDINGS),
    "Exp": _monotone(np.exp, 0.0, np.inf, _FUNCTION_ROUNDINGS),
    "Floor": _monotone(np.floor),
    "Gelu": _dipping(_gelu, -0.7518, -0.17005, -np.inf),
    "Greater": _BOOLEAN,
    "GreaterOrEqual": _BOOLEAN,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _dipping(_hard_swish, -1.5, -0.375, -3.001),
    "Hardmax": _BOOLEAN,
    "LayerNormalization": _normalised,
    "LeakyRelu": _leaky_relu,
    "Less": _BOOLEAN,
    "LessOrEqual": _BOOLEAN,
    "LogSoftmax": _within(-np.inf, 0.0),
    "Neg": _neg,
    "Not": _BOOLEAN,
    "Or": _BOOLEAN,
    "RMSNormalization": _normalised,
    "Relu": _monotone(lambda x: np.maximum(x, 0.0)),
    "Round": _monotone(np.round),
    "Sigmoid": _monotone(_sigmoid, 0.0, 1.0, _FUNCTION_ROUNDINGS),
    "Sign": _monotone(np.sign),
    "Sin": _within(-1.0, 1.0),
    "Softmax": _within(0.0, 1.0 + 2.0**-10),
    "Softplus": _monotone(lambda x: np.logaddexp(x, 0.0), 0.0, np.inf, _FUNCTION_ROUNDINGS),
    "Sqrt": _monotone(lambda x: np.sqrt(np.maximum(x, 0.0)), 0.0, np.inf, 1),
    "Tanh": _monotone(np.tanh, -1.0, 1.0, _FUNCTION_ROUNDINGS),
}
