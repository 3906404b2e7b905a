"""What the compiler knows about the operands of linear operators: which is the weight, where channels lie."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import integer, rank, skip_back
from qcompiler.quant.functions.definition import DOMAIN

__all__ = [
    "BIAS_INPUT",
    "LINEAR",
    "LOG_DECODE",
    "LOG_ENCODE",
    "LOOKUP",
    "ROW_LOOKUPS",
    "TABLE_INPUT",
    "WEIGHT_INPUT",
    "is_log",
    "looks_up_rows",
    "output_channel_axis",
]

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with a weight operand."""

LOOKUP = "Gather"
"""The operator that looks up rows of a table, such as an embedding."""

ROW_LOOKUPS = frozenset({"QGather", "QGatherWeightOnly"})
"""Operators of ``ai.qcompiler`` that look up rows of a packed table: input 0 is indices, input 1 the table."""

LOG_ENCODE = "QLogQuantize"
LOG_DECODE = "QLogDequantize"
"""Codes along a grid, from 16-bit codes and to such: in a Q/DQ graph the only operators of ``ai.qcompiler``."""

TABLE_INPUT = 0
WEIGHT_INPUT = 1
BIAS_INPUT = 2


def output_channel_axis(node: ir.Node, rank: int) -> int:
    """The axis of the output along which channels lie: 1 for convolutions, the last for matrix products."""
    return 1 if node.op_type in ("Conv", "ConvTranspose") else rank - 1


def is_log(node: ir.Node) -> bool:
    """Whether a node puts codes on a grid, or reads its table: like Q/DQ nodes it computes nothing of the model."""
    return node.domain == DOMAIN and node.op_type in (LOG_ENCODE, LOG_DECODE)


def looks_up_rows(node: ir.Node) -> bool:
    """Whether a node picks rows of a table ``[V, …]``: Gather along the first axis, counted from either end."""
    if not has_type(node, LOOKUP):
        return False
    axis = integer(node, "axis", 0)
    return axis == 0 or -axis == rank(skip_back(node.inputs[TABLE_INPUT], ["DequantizeLinear"]))
