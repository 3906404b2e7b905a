"""Softmax attention: scores from two activations, scale, mask, Softmax, and the product with the values."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.ir import constants, patterns

__all__ = ["attention"]

_PRODUCTS = ("MatMul", "Einsum")
_PASSING = ("Cast", "Clip", "Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_REACH = 24
"""Nodes looked at between Softmax and the scores: keeps the search linear in the graph."""


def attention(softmax: ir.Node) -> tuple[str, list[ir.Node]] | None:
    """The attention around a Softmax over the last axis: its kind and its nodes."""
    rank = patterns.rank(softmax.inputs[0])
    if patterns.integer(softmax, "axis", -1) not in (-1, None if rank is None else rank - 1):
        return None
    behind = _towards_values(softmax)
    before = None if behind is None else _towards_scores(softmax.inputs[0])
    if behind is None or before is None:
        return None
    return "softmax-attention", [*_scales(before[0]), *before, softmax, *behind]


def _towards_values(softmax: ir.Node) -> list[ir.Node] | None:
    """The nodes from the probabilities to the product that reads them as its left operand."""
    nodes: list[ir.Node] = []
    value = softmax.outputs[0]
    for _ in range(4):
        for product in patterns.consumers(value, *_PRODUCTS):
            if product.inputs[0] is value and _of_activations(product):
                return [*nodes, product]
        step = patterns.only_consumer(value, "Cast", "Dropout", "Identity", "Reshape", "Where", "Mul")
        if step is None:
            return None
        nodes.append(step)
        value = step.outputs[0]
    return None


def _towards_scores(value: ir.Value | None) -> list[ir.Node] | None:
    """The nodes from the product of queries and keys up to ``value``, the product first."""
    reader: dict[ir.Node, ir.Node | None] = {}
    pending: list[tuple[ir.Value | None, ir.Node | None]] = [(value, None)]
    while pending and len(reader) < _REACH:
        value, behind = pending.pop()
        node: ir.Node | None = patterns.producer(value)
        if node is None or node in reader:
            continue
        reader[node] = behind
        if node.op_type not in _PRODUCTS:
            pending.extend((operand, node) for operand in reversed(_operands(node)))
        elif _of_activations(node):
            path = []
            while node is not None:
                path.append(node)
                node = reader[node]
            return path
    return None


def _operands(node: ir.Node) -> list[ir.Value | None]:
    """Inputs of a node between scores and Softmax that the scores may come from."""
    if node.op_type in _PASSING:
        return [node.inputs[0]]
    if node.op_type in ("Add", "Sub", "Where", "Max"):
        return [value for value in node.inputs[node.op_type == "Where" :] if not constants.is_constant(value)]
    if node.op_type in ("Mul", "Div"):
        first, second = node.inputs
        scale = node.op_type == "Mul" and constants.scalar(first) is not None
        return [second] if scale else [first] if constants.scalar(second) is not None else []
    return []


def _of_activations(product: ir.Node) -> bool:
    return len(product.inputs) == 2 and not any(constants.is_constant(value) for value in product.inputs)


def _scales(product: ir.Node) -> list[ir.Node]:
    """Factors on queries or keys right before their product."""
    producers = (patterns.producer(value, "Mul", "Div") for value in product.inputs)
    return [
        node
        for node in producers
        if node is not None and patterns.scalar_operand(node) is not None and patterns.only_consumer(node.outputs[0])
    ]
