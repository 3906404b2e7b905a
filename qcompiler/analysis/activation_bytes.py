"""Bytes of activations on a float graph to which formats are assigned: what a target would keep, before lowering.

A node that a kernel absorbs (the Relu behind a convolution) writes the kernel's result: what lies between them is never
kept. Nodes that only rename positions (Reshape and its like) keep their input's buffer.
"""

from __future__ import annotations

import math
from typing import Final

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.quant import state

__all__ = ["activation_bytes", "in_place"]

VIEWS: Final = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})


def activation_bytes(value: ir.Value) -> int:
    """Bytes of an activation in its format; 0 of what is never kept, unknown dimensions count as 1."""
    if value.shape is None or value.dtype is None or value.dtype is ir.DataType.STRING or _between(value):
        return 0
    quant = state.value_quant(value)
    bits = value.dtype.bitwidth if quant is None else max(quant.format.in_bytes.storage_bits, 8)
    return math.ceil(math.prod(item if isinstance(item, int) else 1 for item in value.shape) * bits / 8)


def in_place(node: ir.Node) -> ir.Value | None:
    """The input whose buffer the result of a node takes over; ``None`` where it needs one of its own."""
    if node.op_type in VIEWS and not node.domain:
        return node.inputs[0]
    return next((value for value in node.inputs if value is not None and _between(value)), None)


def _between(value: ir.Value) -> bool:
    """Whether a value lies inside a fused kernel: integer nodes on both sides, and no format."""
    producer, readers = value.producer(), list(value.consumers())
    if producer is None or is_constant(value) or value.is_graph_output() or len(readers) != 1:
        return False
    if state.value_quant(value) is not None or not (_on_codes(producer) and _integer(readers[0])):
        return False
    return all(state.own_edge_quant(use.node, use.idx) is None for use in value.uses())


def _on_codes(node: ir.Node) -> bool:
    """Whether a node computes on codes; beside weights of few bits activations are real numbers."""
    read = [(index, value) for index, value in enumerate(node.inputs) if value is not None and not is_constant(value)]
    return _integer(node) and any(state.edge_quant(node, i) is not None or _between(value) for i, value in read)


def _integer(node: ir.Node) -> bool:
    decision = state.node_decision(node)
    return decision is not None and decision.integer
