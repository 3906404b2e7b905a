"""Where a large negative number comes from: the arithmetic of additive masks.

A mask is built from constants and from inputs of the model by operators that move, compare and scale: ``-1e4 (1 -
mask)``, a triangle of ``-1e9``, ``Where(mask, 0, -inf)``, sums of several. ``Masks.constant`` finds the number such a
tensor holds at masked places. Everything that weights were multiplied with is no mask. Where a model takes the mask
itself as an input, only samples can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns

__all__ = ["MOVES", "Masks", "extreme"]

MOVES = (
    "Cast",
    "Expand",
    "Flatten",
    "Gather",
    "GatherND",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
)
"""Operators that move elements of their first input and change none."""

_COMPARISONS = ("And", "Equal", "Greater", "GreaterOrEqual", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor")
_SMALLEST = 1e3
"""Scores before Softmax do not reach this; masks exceed it."""
_GAP = 8.0
"""A mask is a class of its own: its numbers exceed all others of the tensor by this factor; slopes (ALiBi) do not."""
_DEPTH = 24


class Masks:
    """Answers for one graph, each found once.

    Args:
        inputs: Inputs of the graph, the places where masks come from.
        fed: The number of large magnitude in what a floating-point input is fed; without it no such input is a mask.
    """

    def __init__(self, inputs: list[ir.Value], fed: Callable[[ir.Value], float | None] = lambda _: None) -> None:
        self._inputs = frozenset(inputs)
        self._fed = fed
        self._extremes: dict[ir.Value, float | None] = {}
        self._flags: dict[ir.Value, float | None] = {}

    def constant(self, value: ir.Value | None, depth: int = _DEPTH) -> float | None:
        """The number of large magnitude that the tensor holds at masked places; ``None`` when it is no mask."""
        if value is None or depth == 0:
            return None
        if value not in self._extremes:
            self._extremes[value] = self._find(value, depth)
        return self._extremes[value]

    def _find(self, value: ir.Value, depth: int) -> float | None:
        if constants.is_constant(value):
            array = constants.array(value)
            return None if array is None else extreme(array)
        if value in self._inputs:
            return self._fed(value) if value.dtype is not None and value.dtype.is_floating_point() else None
        node = patterns.producer(value)
        if node is None or not node.inputs:
            return None
        if node.op_type in MOVES:
            return self.constant(node.inputs[0], depth - 1)
        rule = _RULES.get(node.op_type)
        return None if rule is None else rule(self, node, depth - 1)

    def flag(self, value: ir.Value | None, depth: int) -> float | None:
        """Where a tensor holds 0 and one other number, made from inputs by moving and comparing: that number, ±1."""
        if value is None or depth == 0:
            return None
        if value not in self._flags:
            self._flags[value] = self._find_flag(value, depth)
        return self._flags[value]

    def harmless(self, value: ir.Value | None, depth: int) -> bool:
        """Whether a tensor beside a mask's number may be part of the mask: a constant or a flag.

        A floating-point input as it is fed may just as well be the scores.
        """
        source = patterns.skip_back(value, MOVES)
        if source in self._inputs and source.dtype is not None:
            return not source.dtype.is_floating_point()
        return constants.is_constant(value) or self.flag(value, depth) is not None

    def _find_flag(self, value: ir.Value, depth: int) -> float | None:
        if value in self._inputs:
            return 1.0
        array = constants.array(value)
        if array is not None:
            found = set(np.unique(array).astype(float)) - {0.0} if array.size else set()
            return found.pop() if found in ({1.0}, {-1.0}) else None
        node = patterns.producer(value)
        if node is None:
            return None
        if node.op_type in _COMPARISONS:
            return 1.0
        if node.op_type in MOVES:
            return self.flag(node.inputs[0], depth - 1)
        if node.op_type == "Mul":
            first, second = (self.flag(item, depth - 1) for item in node.inputs)
            return None if first is None or second is None else first * second
        if node.op_type == "Sub":
            return self._complement(node, depth)
        return None

    def _complement(self, node: ir.Node, depth: int) -> float | None:
        """``1 - flag`` is a flag, ``flag - 1`` is one of the other sign."""
        first, second = node.inputs
        if constants.scalar(first) == 1 and self.flag(second, depth - 1) == 1:
            return 1.0
        return -1.0 if constants.scalar(second) == 1 and self.flag(first, depth - 1) == 1 else None


def extreme(array: NDArray[Any]) -> float | None:
    """The large number in an array, if it holds large numbers of one sign, apart from all its others."""
    if array.size == 0 or array.dtype.kind not in "fi":
        return None
    data = array.astype(np.float64)
    magnitude = np.abs(data)
    if np.isnan(data).any():
        return None
    is_large = magnitude >= _SMALLEST
    large, others = data[is_large], magnitude[~is_large]
    if large.size == 0 or (large.min() < 0 < large.max()):
        return None
    least = float(np.abs(large).min())
    if others.size and float(others.max()) * _GAP > least:
        return None
    return float(large.min() if large[0] < 0 else large.max())


def _scaled(masks: Masks, node: ir.Node, depth: int) -> float | None:
    """A flag times a large constant, or a mask times a small one."""
    for first, second in (node.inputs, node.inputs[::-1]):
        factor = constants.scalar(second)
        if factor is None:
            continue
        sign = masks.flag(first, depth) if abs(factor) >= _SMALLEST else None
        if sign is not None:
            return float(factor) * sign
        inner = masks.constant(first, depth)
        return inner * float(factor) if inner is not None and factor else None
    return None


def _summed(masks: Masks, node: ir.Node, depth: int) -> float | None:
    """A sum of masks, or of a mask and what is small by construction: a flag or a constant."""
    found = [masks.constant(value, depth) for value in node.inputs]
    known = [item for item in found if item is not None]
    others = [value for value, item in zip(node.inputs, found, strict=True) if item is None]
    return _strongest(known) if known and all(masks.harmless(value, depth) for value in others) else None


def _chosen(masks: Masks, node: ir.Node, depth: int) -> float | None:
    """``Where`` between a mask's number and something harmless."""
    found = [masks.constant(value, depth) for value in node.inputs[1:]]
    known = [item for item in found if item is not None]
    others = [value for value, item in zip(node.inputs[1:], found, strict=True) if item is None]
    return _strongest(known) if known and all(masks.harmless(value, depth) for value in others) else None


def _limited(masks: Masks, node: ir.Node, depth: int) -> float | None:
    """``Max(mask, finfo.min)``: the bound of smaller magnitude wins."""
    found = [masks.constant(value, depth) for value in node.inputs if value is not None]
    known = [item for item in found if item is not None]
    return max(known) if len(known) == len(found) and known else None


def _filled(_masks: Masks, node: ir.Node, _depth: int) -> float | None:
    """``ConstantOfShape`` with a large number."""
    attribute = node.attributes.get("value")
    if attribute is None:
        return None
    number = float(attribute.as_tensor().numpy().reshape(-1)[0])
    return number if abs(number) >= _SMALLEST else None


def _strongest(numbers: list[float]) -> float | None:
    """The one of largest magnitude, if all have one sign."""
    if min(numbers) < 0 < max(numbers):
        return None
    return min(numbers) if numbers[0] < 0 else max(numbers)


_RULES: dict[str, Callable[[Masks, ir.Node, int], float | None]] = {
    "Add": _summed,
    "ConstantOfShape": _filled,
    "Max": _limited,
    "Min": _summed,
    "Mul": _scaled,
    "Where": _chosen,
}
