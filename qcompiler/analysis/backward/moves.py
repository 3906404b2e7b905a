"""Operators that move elements: forward by the kernels of the interpreter, backward to where the elements came from."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Final

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
    unbroadcast,
)
from qcompiler.runtime.standard import moves
from qcompiler.runtime.standard.kernel import ElsewhereError, Kernel

__all__ = ["RULES"]


def _moved(
    kernel: Kernel, back: Callable[[Node, Inputs, Array], Array], node: Node, inputs: Inputs
) -> tuple[Array, Pullback]:
    """A move of the first operand; the others say where to."""
    try:
        result = kernel(node, inputs)
    except ElsewhereError:
        raise UnknownFormError("a rare form of it") from None

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        return [back(node, inputs, gradient), *(None for _ in wanted[1:])]

    return np.asarray(result), pullback


def _reshaped(node: Node, inputs: Inputs, gradient: Array) -> Array:
    del node
    return gradient.reshape(given(inputs, 0).shape)


def _transposed(node: Node, inputs: Inputs, gradient: Array) -> Array:
    order = node.integers("perm") or list(reversed(range(given(inputs, 0).ndim)))
    return np.transpose(gradient, np.argsort(order))


def _repeated(node: Node, inputs: Inputs, gradient: Array) -> Array:
    del node
    return unbroadcast(gradient, given(inputs, 0).shape)


def _taken(kernel: Kernel, node: Node, inputs: Inputs, gradient: Array) -> Array:
    """Every element goes back to where it was taken from: the same move, made with positions, says where that is."""
    data = given(inputs, 0)
    positions = np.asarray(kernel(node, [np.arange(data.size).reshape(data.shape), *inputs[1:]]))
    total = np.zeros(data.size, gradient.dtype)
    np.add.at(total, positions.reshape(-1), gradient.reshape(-1))
    return total.reshape(data.shape)


def _unpadded(node: Node, inputs: Inputs, gradient: Array) -> Array:
    data, operand, axes = given(inputs, 0), optional(inputs, 1), optional(inputs, 3)
    if node.text("mode", "constant") != "constant":
        raise UnknownFormError("padding that repeats elements")
    pads = node.integers("pads") if operand is None else [int(item) for item in operand.reshape(-1)]
    pads = pads or []
    along = [int(axis) % data.ndim for axis in axes.reshape(-1)] if axes is not None else list(range(data.ndim))
    total = np.zeros_like(data)
    source, goal = [slice(None)] * data.ndim, [slice(None)] * data.ndim
    for axis, before in zip(along, pads[: len(along)], strict=True):
        size = data.shape[axis]
        source[axis] = slice(max(before, 0), before + size)  # negative padding cuts elements off
        goal[axis] = slice(max(-before, 0), max(-before, 0) + len(range(*source[axis].indices(gradient.shape[axis]))))
    total[tuple(goal)] = gradient[tuple(source)]
    return total


def _concat(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    parts = [given(inputs, index) for index in range(len(inputs))]
    axis = node.integer("axis", 0)
    borders = list(itertools.accumulate(part.shape[axis] for part in parts))[:-1]

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        return [
            piece if asked else None for piece, asked in zip(np.split(gradient, borders, axis), wanted, strict=True)
        ]

    return np.concatenate(parts, axis), pullback


_BACK: Final[dict[str, Callable[[Node, Inputs, Array], Array]]] = {
    "Expand": _repeated,
    "Flatten": _reshaped,
    "Identity": _reshaped,
    "Pad": _unpadded,
    "Reshape": _reshaped,
    "Squeeze": _reshaped,
    "Transpose": _transposed,
    "Unsqueeze": _reshaped,
    **{name: functools.partial(_taken, moves.KERNELS[name]) for name in ("DepthToSpace", "Gather", "Slice", "Tile")},
}

RULES: Final[dict[str, Rule]] = {
    "Concat": _concat,
    **{name: functools.partial(_moved, moves.KERNELS[name], back) for name, back in _BACK.items()},
}
