"""What a differentiable operator is: its value, and how a gradient of the value becomes gradients of the operands.

For ``y = f(x1, …, xn)`` and a scalar loss, the *pullback* of ``f`` at a point maps ``g = ∂loss/∂y`` to
``g · ∂f/∂xi`` for every operand: the vector-Jacobian products of reverse-mode differentiation (Griewank and Walther,
"Evaluating Derivatives", chapter 3). A rule computes the value and returns the pullback with what it must remember.

Rules keep the element type of what they are given: float32 at work, float64 under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcompiler.runtime.standard.kernel import Inputs, Node, given

__all__ = [
    "Array",
    "Gradients",
    "Inputs",
    "Node",
    "Pullback",
    "Rule",
    "UnknownFormError",
    "given",
    "optional",
    "unbroadcast",
]

Array: TypeAlias = NDArray[Any]

Gradients: TypeAlias = "Sequence[Array | None]"
"""One per operand, ``None`` where nothing flows back or nobody asked."""

Pullback: TypeAlias = "Callable[[Array, Sequence[bool]], Gradients]"
"""From the result's gradient, and which operands' gradients are wanted, to those gradients."""

Rule: TypeAlias = "Callable[[Node, Inputs], tuple[Array, Pullback]]"
"""Computes the first result of a node; raises ``UnknownFormError`` with a reason for a form it does not know."""


class UnknownFormError(Exception):
    """An operator is known, but not in this form (a rare attribute, another result); ``Program`` names the node."""


def optional(inputs: Inputs, index: int) -> Array | None:
    """An operand that may be missing."""
    return inputs[index] if index < len(inputs) else None


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an operand of ``shape`` was repeated."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    repeated = [axis + extra for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis + extra] != 1]
    total = gradient.sum(axis=(*range(extra), *repeated), keepdims=True)
    return np.asarray(total.reshape(shape))
