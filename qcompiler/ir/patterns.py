"""Small questions a pass asks while matching: who reads this value, who made it, which operand is the constant.

Every helper answers in constant time for graphs of bounded fan-out and never scans the graph, so that matching
stays linear in the number of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from qcompiler.ir import constants
from qcompiler.ir.operators import has_type

__all__ = [
    "consumers",
    "has_type",
    "integer",
    "integers",
    "number",
    "only_consumer",
    "other_operand",
    "producer",
    "rank",
    "reads_twice",
    "scalar_operand",
    "skip_back",
    "static_shape",
]

def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The standard node that made ``value``, if it is one of ``op_types`` (any, when none are given)."""
    node = None if value is None else value.producer()
    if node is None or (op_types and not has_type(node, *op_types)):
        return None
    return node


def consumers(value: ir.Value, *op_types: str) -> Iterator[ir.Node]:
    """The nodes that read ``value``, each once, restricted to ``op_types`` when given."""
    for node in value.consumers():
        if not op_types or has_type(node, *op_types):
            yield node


def only_consumer(value: ir.Value, *op_types: str) -> ir.Node | None:
    """The one node that reads ``value``, when nothing else does, the graph's outputs included."""
    if value.is_graph_output():
        return None
    found = value.consumers()
    if len(found) != 1 or found[0].graph is not value.graph:
        return None
    return found[0] if not op_types or has_type(found[0], *op_types) else None


def other_operand(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The operand of a two-input node that is not ``value``; ``None`` when both are, or neither is."""
    if len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if first is value:
        return None if second is value else second
    return first if second is value else None


def reads_twice(node: ir.Node) -> bool:
    """Whether both operands of a two-input node are the same value, as in ``Mul(x, x)``."""
    return len(node.inputs) == 2 and node.inputs[0] is not None and node.inputs[0] is node.inputs[1]


def scalar_operand(node: ir.Node) -> tuple[ir.Value, float] | None:
    """For a two-input node with exactly one constant of one element: the other operand, and that number."""
    if len(node.inputs) != 2:
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        item = constants.scalar(other)
        if item is not None and value is not None and not constants.is_constant(value):
            return value, float(item)
    return None


def skip_back(value: ir.Value | None, op_types: Sequence[str]) -> ir.Value | None:
    """Walk from ``value`` towards the inputs through nodes of ``op_types``, following their first input."""
    while value is not None and (node := producer(value, *op_types)) is not None:
        value = node.inputs[0]
    return value


def rank(value: ir.Value | None) -> int | None:
    """Number of dimensions, where known."""
    return None if value is None or value.shape is None else len(value.shape)


def static_shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Dimensions as numbers, ``None`` for an unknown one; ``None`` as a whole for an unknown rank."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute or its default."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.as_int()


def integers(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """A list of integers, ``None`` when the attribute is absent."""
    found = node.attributes.get(name)
    return None if found is None or found.is_ref() else tuple(found.as_ints())


def number(node: ir.Node, name: str, default: float) -> float:
    """A floating-point attribute or its default."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.as_float()
