"""Operators of two operands, element by element, with broadcasting."""

from __future__ import annotations

import functools
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
    unbroadcast,
)

__all__ = ["RULES"]

_Parts: TypeAlias = "tuple[Callable[[Array], Array], Callable[[Array], Array]]"
"""From the result's gradient to both operands', before sums over repeated axes."""


def _binary(
    compute: Callable[[Array, Array], tuple[Array, _Parts]], node: Node, inputs: Inputs
) -> tuple[Array, Pullback]:
    del node
    if len(inputs) != 2:
        raise UnknownFormError(f"{len(inputs)} operands")
    first, second = given(inputs, 0), given(inputs, 1)
    result, parts = compute(first, second)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        return [
            unbroadcast(part(gradient), operand.shape) if asked else None
            for part, operand, asked in zip(parts, (first, second), wanted, strict=True)
        ]

    return np.asarray(result), pullback


def _add(first: Array, second: Array) -> tuple[Array, _Parts]:
    return first + second, (lambda g: g, lambda g: g)


def _subtract(first: Array, second: Array) -> tuple[Array, _Parts]:
    return first - second, (lambda g: g, np.negative)


def _multiply(first: Array, second: Array) -> tuple[Array, _Parts]:
    return first * second, (lambda g: g * second, lambda g: g * first)


def _divide(first: Array, second: Array) -> tuple[Array, _Parts]:
    quotient = first / second
    return quotient, (lambda g: g / second, lambda g: -g * quotient / second)


def _power(first: Array, second: Array) -> tuple[Array, _Parts]:
    """The exponent's gradient exists for positive bases only, elsewhere it is taken as 0."""
    result = np.power(first, second)

    def into_exponent(gradient: Array) -> Array:
        positive = first > 0
        return np.asarray(gradient * result * np.log(np.where(positive, first, 1)))

    return result, (lambda g: g * second * np.power(first, second - 1), into_exponent)


def _extreme(choose: Callable[[Array, Array], Array], first: Array, second: Array) -> tuple[Array, _Parts]:
    """Min and Max: the operand that is the result gets the gradient; the first one where both are."""
    result = choose(first, second)
    from_first = result == first
    return result, (lambda g: g * from_first, lambda g: g * ~from_first)


_COMPUTE: Final[dict[str, Callable[[Array, Array], tuple[Array, _Parts]]]] = {
    "Add": _add,
    "Div": _divide,
    "Max": functools.partial(_extreme, np.maximum),
    "Min": functools.partial(_extreme, np.minimum),
    "Mul": _multiply,
    "Pow": _power,
    "Sub": _subtract,
}

RULES: Final[dict[str, Rule]] = {name: functools.partial(_binary, compute) for name, compute in _COMPUTE.items()}
