"""GELU and SiLU written in elementary operators, recognised by what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns

__all__ = ["activation", "gelu_form"]

Points = NDArray[np.float64]

_POINTS: Points = np.array([-4.0, -2.3, -1.0, -0.4, -0.05, 0.0, 0.1, 0.7, 1.3, 2.6, 5.0])
_TOLERANCE = 2e-3
"""The tanh form of GELU is off by up to 5e-4; a wrong constant in the second digit is off by more than this."""
_EXACT = 2e-5
"""Constants written with five digits are closer than this; the two forms of GELU are not."""

_DEPTH = 8
"""Longest way from the product back to the operand, in nodes."""


def _erf(x: Points) -> Points:
    return np.array([math.erf(item) for item in x])


def _sigmoid(x: Points) -> Points:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


_UNARY: dict[str, Callable[[Points], Points]] = {"Erf": _erf, "Tanh": np.tanh, "Sigmoid": _sigmoid, "Neg": np.negative}
_BINARY: dict[str, Callable[[Points, Points], Points]] = {
    "Add": np.add,
    "Div": np.divide,
    "Mul": np.multiply,
    "Pow": np.power,
    "Sub": np.subtract,
}

_GELU: dict[str, Points] = {
    "none": _POINTS * 0.5 * (1 + _erf(_POINTS / math.sqrt(2))),
    "tanh": _POINTS * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (_POINTS + 0.044715 * _POINTS**3))),
}
"""By the name that the operator Gelu has for the form."""

_KINDS: dict[str, list[Points]] = {
    "gelu": [_GELU["none"], _POINTS * _sigmoid(1.702 * _POINTS)],
    "silu": [_POINTS * _sigmoid(_POINTS)],
}


def activation(anchor: ir.Node) -> tuple[str, list[ir.Node]] | None:
    """The activation function around an Erf, Tanh or Sigmoid: its kind and its nodes."""
    for source, result in _candidates(anchor):
        nodes: dict[ir.Node, None] = {}
        with np.errstate(all="ignore"):
            points = _evaluate(result, source, nodes, _DEPTH)
        if points is None or anchor not in nodes:
            continue
        for kind, forms in _KINDS.items():
            if any(np.abs(points - form).max() <= _TOLERANCE for form in forms):
                return kind, list(nodes)
    return None


def gelu_form(source: ir.Value, result: ir.Value) -> str | None:
    """Which Gelu computes ``result`` from ``source`` to float precision: ``none``, ``tanh``, or no one."""
    with np.errstate(all="ignore"):
        points = _evaluate(result, source, {}, _DEPTH)
    if points is None:
        return None
    return next((name for name, form in _GELU.items() if np.abs(points - form).max() <= _EXACT), None)


def _candidates(anchor: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Pairs of a possible operand and a possible result: the function ends in a product with its operand.

    The longer form comes first, so that a factor of one half behind the product is part of the function.
    """
    value = anchor.outputs[0]
    for _ in range(3):
        for node in patterns.consumers(value, "Mul"):
            other = patterns.other_operand(node, value)
            if other is None or constants.is_constant(other):
                continue
            scaled = patterns.only_consumer(node.outputs[0], "Mul", "Div")
            half = patterns.producer(other, "Mul", "Div")
            inner = None if half is None else patterns.scalar_operand(half)
            for source in (other, None if inner is None else inner[0]):
                if source is not None and scaled is not None and patterns.scalar_operand(scaled) is not None:
                    yield source, scaled.outputs[0]
                if source is not None:
                    yield source, node.outputs[0]
        following = patterns.only_consumer(value, "Add", "Mul", "Div")
        if following is None or patterns.scalar_operand(following) is None:
            return
        value = following.outputs[0]


def _evaluate(value: ir.Value, source: ir.Value, nodes: dict[ir.Node, None], depth: int) -> Points | None:
    """``value`` as a function of ``source`` at the sample points; ``None`` when it depends on anything else."""
    if value is source:
        return _POINTS
    number = constants.scalar(value)
    if number is not None:
        return np.full_like(_POINTS, float(number))
    node = patterns.producer(value, *_UNARY, *_BINARY)
    if node is None or depth == 0:
        return None
    operands = []
    for item in node.inputs:
        operand = None if item is None else _evaluate(item, source, nodes, depth - 1)
        if operand is None:
            return None
        operands.append(operand)
    nodes[node] = None
    return _UNARY[node.op_type](operands[0]) if node.op_type in _UNARY else _BINARY[node.op_type](*operands)
