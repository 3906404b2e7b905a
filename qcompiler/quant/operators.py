"""What the compiler knows about the operands of linear operators: which is the weight, which axis is a channel."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["BIAS_INPUT", "LINEAR", "WEIGHT_INPUT", "block_axis", "channel_axis", "is_constant", "output_channel_axis"]

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with a weight operand."""

WEIGHT_INPUT = 1
BIAS_INPUT = 2


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is an initializer that a caller cannot override."""
    return value is not None and value.is_initializer() and not value.is_graph_input()


def channel_axis(node: ir.Node, rank: int) -> int | None:
    """The axis of the weight along which output channels lie; ``None`` where scales per channel make no sense.

    Conv ``(M, C/g, …)``: 0. ConvTranspose ``(C, M/g, …)``: 1, but only ungrouped, because with groups one index
    of that axis serves one output channel of every group. Gemm ``(K, N)``: 1, transposed 0. MatMul ``(K, N)``: 1.
    """
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if int_attribute(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if int_attribute(node, "transB", 0) else 1
    if node.op_type == "MatMul":
        return 1 if rank == 2 else None
    return None


def block_axis(node: ir.Node, rank: int) -> int | None:
    """The reduction axis of the weight, along which block-wise scales run."""
    if node.op_type == "Gemm":
        return 1 if int_attribute(node, "transB", 0) else 0
    if node.op_type == "MatMul":
        return 0 if rank == 2 else None
    return None


def output_channel_axis(node: ir.Node, rank: int) -> int:
    """The axis of the output along which channels lie: 1 for convolutions, the last for matrix products."""
    return 1 if node.op_type in ("Conv", "ConvTranspose") else rank - 1


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()
