"""Operators of one number as float64 functions, with their attributes and constant operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.quant.integer.table_design import Function

__all__ = ["FUNCTIONS", "power", "quotient"]

Points: TypeAlias = NDArray[np.float64]

_SELU: Final = (1.67326319217681884765625, 1.05070102214813232421875)
_TANH_GELU: Final = (math.sqrt(2 / math.pi), 0.044715)


def power(exponent: float) -> Function:
    """``x`` to a constant exponent."""
    return lambda x: np.power(x, exponent)


def quotient(numerator: float) -> Function:
    """A constant over ``x``."""
    return lambda x: numerator / x


def _erf(x: Points) -> Points:
    return np.fromiter((math.erf(item) for item in x.reshape(-1)), np.float64, x.size).reshape(x.shape)


def _sigmoid(x: Points) -> Points:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def _softplus(x: Points) -> Points:
    return np.asarray(np.logaddexp(0.0, x))


def _gelu(node: ir.Node) -> Function:
    if node.attributes.get_string("approximate", "none") == "tanh":
        factor, cubic = _TANH_GELU
        return lambda x: 0.5 * x * (1 + np.tanh(factor * (x + cubic * x**3)))
    return lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _number(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes.get_float(name, default))


def _elu(node: ir.Node) -> Function:
    alpha = _number(node, "alpha", 1.0)
    return lambda x: np.where(x > 0, x, alpha * np.expm1(x))


def _selu(node: ir.Node) -> Function:
    alpha, gamma = _number(node, "alpha", _SELU[0]), _number(node, "gamma", _SELU[1])
    return lambda x: gamma * np.where(x > 0, x, alpha * np.expm1(x))


def _celu(node: ir.Node) -> Function:
    alpha = _number(node, "alpha", 1.0)
    return lambda x: np.where(x > 0, x, alpha * np.expm1(x / alpha))


def _hard_sigmoid(node: ir.Node) -> Function:
    alpha, beta = _number(node, "alpha", 0.2), _number(node, "beta", 0.5)
    return lambda x: np.clip(alpha * x + beta, 0.0, 1.0)


def _thresholded(node: ir.Node) -> Function:
    alpha = _number(node, "alpha", 1.0)
    return lambda x: np.where(x > alpha, x, 0.0)


def _shrink(node: ir.Node) -> Function:
    bias, edge = _number(node, "bias", 0.0), _number(node, "lambd", 0.5)
    return lambda x: np.where(x < -edge, x + bias, np.where(x > edge, x - bias, 0.0))


def _swish(node: ir.Node) -> Function:
    alpha = _number(node, "alpha", 1.0)
    return lambda x: x * _sigmoid(alpha * x)


def _fixed(function: Callable[[Points], Any]) -> Callable[[ir.Node], Function]:
    return lambda _: function


FUNCTIONS: Final[Mapping[str, Callable[[ir.Node], Function]]] = MappingProxyType(
    {
        "Acos": _fixed(np.arccos),
        "Acosh": _fixed(np.arccosh),
        "Asin": _fixed(np.arcsin),
        "Asinh": _fixed(np.arcsinh),
        "Atan": _fixed(np.arctan),
        "Atanh": _fixed(np.arctanh),
        "Ceil": _fixed(np.ceil),
        "Celu": _celu,
        "Cos": _fixed(np.cos),
        "Cosh": _fixed(np.cosh),
        "Elu": _elu,
        "Erf": _fixed(_erf),
        "Exp": _fixed(np.exp),
        "Floor": _fixed(np.floor),
        "Gelu": _gelu,
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _fixed(lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0)),
        "Log": _fixed(np.log),
        "Mish": _fixed(lambda x: x * np.tanh(_softplus(x))),
        "Reciprocal": _fixed(lambda x: 1.0 / x),
        "Round": _fixed(np.rint),
        "Selu": _selu,
        "Shrink": _shrink,
        "Sigmoid": _fixed(_sigmoid),
        "Sign": _fixed(np.sign),
        "Sin": _fixed(np.sin),
        "Sinh": _fixed(np.sinh),
        "Softplus": _fixed(_softplus),
        "Softsign": _fixed(lambda x: x / (1 + np.abs(x))),
        "Sqrt": _fixed(np.sqrt),
        "Swish": _swish,
        "Tan": _fixed(np.tan),
        "Tanh": _fixed(np.tanh),
        "ThresholdedRelu": _thresholded,
    }
)
"""Functions by operator type, from the node that has their attributes."""
