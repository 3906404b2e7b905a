"""Which axis of a weight belongs to the output channels, and which is summed over."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.ir.patterns import integer
from qcompiler.quant.operators import LOOKUP

__all__ = ["block_axis", "channel_axis"]


def channel_axis(node: ir.Node) -> int | None:
    """The axis of the weight (input 1) that indexes output channels, counted from 0.

    ``None`` where there is none (a vector operand of MatMul, an operator without weights) or its rank is unknown, and
    for the weights of a batched MatMul: matrices of a batch have channels of their own, and ONNX Runtime's integer
    kernels fail on scales that they share. ConvTranspose stores ``[in, out / group, …]``: its groups share the scales
    of axis 1. A table (input 0 of Gather) has a scale per row.
    """
    if node.op_type == LOOKUP:
        return 0
    rank = _weight_rank(node)
    if rank is None:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if integer(node, "transB", 0) else 1
    return 1 if node.op_type == "MatMul" and rank == 2 else None


def block_axis(node: ir.Node) -> int | None:
    """The axis of the weight (input 1) that the operator sums over, along which blocks lie; ``None`` as above."""
    rank = _weight_rank(node)
    if rank is None:
        return None
    if node.op_type == "Conv":
        return 1
    if node.op_type == "ConvTranspose":
        return 0
    if node.op_type == "Gemm":
        return 1 if integer(node, "transB", 0) else 0
    return rank - 2 if node.op_type == "MatMul" and rank >= 2 else None


def _weight_rank(node: ir.Node) -> int | None:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return len(weight.shape) if weight is not None and weight.shape is not None else None
