"""Functions of one operand, element by element: value and slope.

At a kink the slope is that of the flat side: a Relu passes nothing back at 0, a Clip nothing at and beyond its bounds.

NumPy has no error function. Its values at multiples of 1/256 come from the C library, once; between them runs the
cubic with the exact values and the exact slopes ``2/√π · exp(-x²)`` at both ends (Hermite interpolation), whose error
is below ``h⁴/384 · max|erf⁗| < 5e-12``. Beyond ``|x| = 6`` the function is ±1 to the last bit of a double.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np

from qcompiler.analysis.backward.rule import (
    Array,
    Gradients,
    Inputs,
    Node,
    Pullback,
    Rule,
    UnknownFormError,
    given,
    optional,
)

__all__ = ["RULES", "erf"]

_Point: TypeAlias = "tuple[Array, Callable[[], Array]]"
"""Values, and the slopes there, computed when asked for."""

_STEPS: Final = 256
_END: Final = 6


def erf(data: Array) -> Array:
    """The error function; absolute error below 5e-12 in float64."""
    values, slopes = _error_function_table()
    scaled = np.clip(np.abs(data), 0, _END - 1e-6) * _STEPS
    index = scaled.astype(np.int32)
    t = scaled - index
    left, right = values[index], values[index + 1]
    first, second = slopes[index], slopes[index + 1]
    square, cube = 3 * (right - left) - 2 * first - second, 2 * (left - right) + first + second
    curve = left + t * (first + t * (square + t * cube))
    return np.asarray(np.copysign(curve, data).astype(data.dtype, copy=False))


@functools.cache
def _error_function_table() -> tuple[Array, Array]:
    """Values and slopes times the step, at multiples of the step."""
    points = np.arange(_END * _STEPS + 1) / _STEPS
    values = np.array([math.erf(point) for point in points])
    return values, _bell(points) / _STEPS


def _bell(data: Array) -> Array:
    """The slope of the error function."""
    return np.asarray(data.dtype.type(2 / math.sqrt(math.pi)) * np.exp(-data * data))


def _unary(compute: Callable[[Node, Array], _Point], node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    result, slope = compute(node, given(inputs, 0))

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        del wanted
        return [gradient * slope()]

    return result, pullback


def _clip(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    """Bounds are operands since operator set 11, attributes before; they are constants here."""
    data = given(inputs, 0)
    result, inside = data, np.ones(data.shape, np.bool_)
    sides = ((1, "min", np.maximum, np.less_equal), (2, "max", np.minimum, np.greater_equal))
    for index, name, choose, beyond in sides:
        operand = optional(inputs, index)
        bound = node.attributes.get(name) if operand is None else operand
        if bound is not None:
            bound = np.asarray(bound, data.dtype).reshape(())
            inside &= ~beyond(data, bound)
            result = choose(result, bound)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        if any(wanted[1:]):
            raise UnknownFormError("gradients of the bounds of a Clip")
        return [gradient * inside, *(None for _ in wanted[1:])]

    return result, pullback


def _relu(node: Node, data: Array) -> _Point:
    del node
    return np.maximum(data, 0), lambda: np.asarray(data > 0)


def _leaky_relu(node: Node, data: Array) -> _Point:
    slope = np.where(data > 0, 1, float(node.attributes.get("alpha", 0.01))).astype(data.dtype)
    return data * slope, lambda: slope


def _hard_sigmoid(node: Node, data: Array) -> _Point:
    alpha, beta = float(node.attributes.get("alpha", 0.2)), float(node.attributes.get("beta", 0.5))
    return _ramp(data, alpha, beta)


def _ramp(data: Array, alpha: float, beta: float) -> _Point:
    line = data * data.dtype.type(alpha) + data.dtype.type(beta)
    inside = (line > 0) & (line < 1)
    return np.clip(line, 0, 1), lambda: inside * data.dtype.type(alpha)


def _hard_swish(node: Node, data: Array) -> _Point:
    del node
    gate, slope = _ramp(data, 1 / 6, 0.5)
    return data * gate, lambda: gate + data * slope()


def _sigmoid(node: Node, data: Array) -> _Point:
    del node
    result = 0.5 * (np.tanh(0.5 * data) + 1)  # never overflows
    return result, lambda: result * (1 - result)


def _tanh(node: Node, data: Array) -> _Point:
    del node
    result = np.tanh(data)
    return result, lambda: 1 - result * result


def _erf(node: Node, data: Array) -> _Point:
    del node
    return erf(data), lambda: _bell(data)


def _gelu(node: Node, data: Array) -> _Point:
    """``x Φ(x)`` with the normal distribution's Φ, or its approximation by tanh."""
    if node.text("approximate", "none") == "tanh":
        scale, cubic = data.dtype.type(math.sqrt(2 / math.pi)), data.dtype.type(0.044715)
        bent = np.tanh(scale * (data + cubic * data**3))
        share = (1 + bent) / 2
        return data * share, lambda: share + data * (1 - bent * bent) * scale * (1 + 3 * cubic * data * data) / 2
    root = data.dtype.type(math.sqrt(0.5))
    share = (1 + erf(data * root)) / 2
    return data * share, lambda: share + data * _bell(data * root) * root / 2


def _exp(node: Node, data: Array) -> _Point:
    del node
    result = np.exp(data)
    return result, lambda: result


def _log(node: Node, data: Array) -> _Point:
    del node
    return np.log(data), lambda: 1 / data


def _sqrt(node: Node, data: Array) -> _Point:
    del node
    result = np.sqrt(data)
    return result, lambda: 0.5 / result


def _reciprocal(node: Node, data: Array) -> _Point:
    del node
    result = 1 / data
    return result, lambda: -result * result


def _negative(node: Node, data: Array) -> _Point:
    del node
    return -data, lambda: np.asarray(-1, data.dtype)


def _absolute(node: Node, data: Array) -> _Point:
    del node
    return np.abs(data), lambda: np.sign(data)


RULES: Final[dict[str, Rule]] = {
    "Clip": _clip,
    **{
        name: functools.partial(_unary, compute)
        for name, compute in {
            "Abs": _absolute,
            "Erf": _erf,
            "Exp": _exp,
            "Gelu": _gelu,
            "HardSigmoid": _hard_sigmoid,
            "HardSwish": _hard_swish,
            "LeakyRelu": _leaky_relu,
            "Log": _log,
            "Neg": _negative,
            "Reciprocal": _reciprocal,
            "Relu": _relu,
            "Sigmoid": _sigmoid,
            "Sqrt": _sqrt,
            "Tanh": _tanh,
        }.items()
    },
}
