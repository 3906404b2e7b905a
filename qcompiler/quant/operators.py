"""What the compiler knows about the operands of linear operators: which is the weight, where channels lie."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["BIAS_INPUT", "LINEAR", "LOOKUP", "TABLE_INPUT", "WEIGHT_INPUT", "output_channel_axis"]

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with a weight operand."""

LOOKUP = "Gather"
"""The operator that looks up rows of a table, such as an embedding."""

TABLE_INPUT = 0
WEIGHT_INPUT = 1
BIAS_INPUT = 2


def output_channel_axis(node: ir.Node, rank: int) -> int:
    """The axis of the output along which channels lie: 1 for convolutions, the last for matrix products."""
    return 1 if node.op_type in ("Conv", "ConvTranspose") else rank - 1
