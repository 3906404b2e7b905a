"""Shape arithmetic with partly known numbers.

A small integer tensor of rank 0 or 1 is followed element by element: an ``int`` where it is proven, a ``str`` where
it is a dimension (at least 0, equal wherever the name is equal), ``None`` where nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from qcompiler.ir.constants import array, is_constant, scalar
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.passes.normalize._rewrite import flag

__all__ = ["ShapeArithmetic"]

_Item: TypeAlias = "int | str | None"
_LONGEST = 64


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A partly known tensor: its elements, and whether it is a scalar (rank 0)."""

    items: tuple[_Item, ...]
    is_scalar: bool = False


class ShapeArithmetic:
    """What is known about small integer tensors, built up in topological order.

    Attributes:
        open_ends: Values followed that are not fully known.
    """

    def __init__(self) -> None:
        self._known: dict[ir.Value, _Numbers] = {}
        self._first: dict[tuple[object, ...], ir.Value] = {}
        self.open_ends = 0

    def follow(self, node: ir.Node) -> ir.TensorProtocol | None:
        """Learn the result of ``node``; returns it where it is fully known."""
        rule = _RULES.get(node.op_type) if node.domain == "" else None
        numbers = None if rule is None else rule(node, self._numbers)
        if numbers is None or len(numbers.items) > _LONGEST:
            return None
        output = node.outputs[0]
        items = [item for item in numbers.items if isinstance(item, int)]
        if len(items) == len(numbers.items):
            dtype = np.dtype(np.int64) if output.dtype is None else output.dtype.numpy()
            data = np.array(items, dtype)
            return ir.Tensor(data.reshape(()) if numbers.is_scalar else data)
        self._known[output] = numbers
        self.open_ends += 1
        return None

    def simplify(self, node: ir.Node, edit: Edit) -> None:
        """Make use of what is known: constant Reshape targets, one copy of equal shape vectors."""
        if has_type(node, "Reshape"):
            self._simplify_reshape(node, edit)
        numbers = self._known.get(node.outputs[0])
        if numbers is None or None in numbers.items or node.outputs[0].is_graph_output():
            return
        key = (numbers, node.outputs[0].dtype)
        first = self._first.setdefault(key, node.outputs[0])
        if first is not node.outputs[0]:
            edit.replace_uses(node.outputs[0], first)
            edit.remove_unused([node.outputs[0]])

    def _simplify_reshape(self, node: ir.Node, edit: Edit) -> None:
        """A target with one unknown element becomes constant: 0 (copy) where it is the input's own size, else -1."""
        data, target = node.inputs[0], node.inputs[1]
        numbers = None if target is None else self._known.get(target)
        if data is None or target is None or numbers is None or flag(node, "allowzero"):
            return
        constant: list[int] = []
        for index, item in enumerate(numbers.items):
            if isinstance(item, int) and item != 0:
                constant.append(item)
            elif isinstance(item, str) and _size(data, index) == item:
                constant.append(0)
            elif not isinstance(item, int):
                constant.append(-1)
            else:
                return
        if constant.count(-1) <= 1:
            edit.set_input(node, 1, edit.constant(f"{node.name}_shape", np.array(constant, np.int64)))
            edit.remove_unused([target])

    def _numbers(self, value: ir.Value | None) -> _Numbers | None:
        """What is known about a value."""
        if value is None:
            return None
        if value in self._known:
            return self._known[value]
        if not is_constant(value) or value.const_value is None or value.const_value.size > _LONGEST:
            return None
        data = array(value)
        if data is None or data.ndim > 1 or data.dtype.kind not in "iub":
            return None
        return _Numbers(tuple(int(item) for item in data.reshape(-1)), data.ndim == 0)


def _size(value: ir.Value, index: int) -> _Item:
    """One dimension of a value: a number, its name, or as the name of a nameless one the place where it is."""
    if value.shape is None or index >= len(value.shape):
        return None
    size = value.shape[index]
    if isinstance(size, int):
        return size
    return size.value or f"dimension {index} of {value.name}"


_Lookup: TypeAlias = Callable[["ir.Value | None"], "_Numbers | None"]
_Rule: TypeAlias = Callable[[ir.Node, _Lookup], "_Numbers | None"]


def _shape(node: ir.Node, look: _Lookup) -> _Numbers | None:  # noqa: ARG001 - the signature of a rule
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    sizes = tuple(_size(source, index) for index in range(len(source.shape)))
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(sizes))
    return _Numbers(sizes[start:end])


def _gather(node: ir.Node, look: _Lookup) -> _Numbers | None:
    source, index = look(node.inputs[0]), array(node.inputs[1])
    if source is None or source.is_scalar or index is None or index.ndim > 1:
        return None
    length = len(source.items)
    if any(not -length <= int(item) < length for item in index.reshape(-1)):
        return None
    return _Numbers(tuple(source.items[int(item)] for item in index.reshape(-1)), index.ndim == 0)


def _concat(node: ir.Node, look: _Lookup) -> _Numbers | None:
    parts = [look(value) for value in node.inputs]
    if any(part is None for part in parts):
        return None
    return _Numbers(tuple(item for part in parts if part is not None for item in part.items))


def _slice(node: ir.Node, look: _Lookup) -> _Numbers | None:
    source = look(node.inputs[0])
    operands = [scalar(value) for value in node.inputs[1:]]
    if source is None or source.is_scalar or len(operands) < 2 or any(item is None for item in operands):
        return None
    start, end, _, step = [int(item) for item in operands if item is not None] + [0, 1][len(operands) - 2 :]
    return _Numbers(source.items[slice(start, end, step)]) if step > 0 else None


def _to_vector(node: ir.Node, look: _Lookup) -> _Numbers | None:
    """Unsqueeze of a scalar, or a Reshape that keeps one dimension."""
    source, operand = look(node.inputs[0]), array(node.inputs[1])
    if source is None or operand is None or operand.size != 1:
        return None
    if has_type(node, "Unsqueeze") and not source.is_scalar:
        return None
    return _Numbers(source.items)


def _to_scalar(node: ir.Node, look: _Lookup) -> _Numbers | None:
    source = look(node.inputs[0])
    return _Numbers(source.items, is_scalar=True) if source is not None and len(source.items) == 1 else None


def _cast(node: ir.Node, look: _Lookup) -> _Numbers | None:
    return look(node.inputs[0]) if node.attributes.get_int("to", 0) in {ir.DataType.INT32, ir.DataType.INT64} else None


def _equal(node: ir.Node, look: _Lookup) -> _Numbers | None:
    """A dimension never equals a negative number, and always itself."""

    def compare(left: _Item, right: _Item) -> _Item:
        if isinstance(left, int) and isinstance(right, int):
            return int(left == right)
        if isinstance(left, str) and isinstance(right, str):
            return 1 if left == right else None
        number = left if isinstance(left, int) else right if isinstance(right, int) else None
        symbol = isinstance(left, str) or isinstance(right, str)
        return 0 if symbol and number is not None and number < 0 else None

    return _elementwise([look(value) for value in node.inputs], lambda items: compare(items[0], items[1]))


def _where(node: ir.Node, look: _Lookup) -> _Numbers | None:
    parts = [look(value) for value in node.inputs]

    def choose(items: tuple[_Item, ...]) -> _Item:
        condition, yes, no = items
        return (yes if condition else no) if isinstance(condition, int) else yes if yes == no else None

    return _elementwise(parts, choose)


def _arithmetic(function: Callable[[int, int], int | None], neutral: int | None) -> _Rule:
    """Two operands; ``neutral`` on the right leaves a symbol as it is."""

    def combine(items: tuple[_Item, ...]) -> _Item:
        left, right = items
        if isinstance(left, int) and isinstance(right, int):
            return function(left, right)
        return left if right == neutral and neutral is not None else None

    return lambda node, look: _elementwise([look(value) for value in node.inputs], combine)


def _elementwise(parts: list[_Numbers | None], function: Callable[[tuple[_Item, ...]], _Item]) -> _Numbers | None:
    """Apply to corresponding elements; a single element is repeated."""
    known = [part for part in parts if part is not None]
    if len(known) != len(parts):
        return None
    length = max(len(part.items) for part in known)
    if any(len(part.items) not in (1, length) for part in known):
        return None
    columns = [part.items * (length if len(part.items) == 1 else 1) for part in known]
    items = tuple(function(column) for column in zip(*columns, strict=True))
    return _Numbers(items, all(part.is_scalar for part in known))


_RULES: Mapping[str, _Rule] = {
    "Add": _arithmetic(lambda a, b: a + b, 0),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _arithmetic(lambda a, b: a // b if a >= 0 and b > 0 else None, 1),
    "Equal": _equal,
    "Gather": _gather,
    "Mul": _arithmetic(lambda a, b: a * b, 1),
    "Reshape": _to_vector,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _to_scalar,
    "Sub": _arithmetic(lambda a, b: a - b, 0),
    "Unsqueeze": _to_vector,
    "Where": _where,
}
