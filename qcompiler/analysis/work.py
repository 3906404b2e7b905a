"""How much a node computes: multiply-accumulate operations from its shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

__all__ = ["macs", "total_macs"]


def macs(node: ir.Node, dimensions: Mapping[str, int] | None = None) -> int:
    """Multiply-accumulates of one node; 0 for operators other than convolutions and matrix products.

    Args:
        node: The node; the shapes of its values are inferred.
        dimensions: Sizes of symbolic dimensions. Those not listed count as 1, so that figures hold per sample; nodes
            whose rank is not known count 0.
    """
    count = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul}.get(node.op_type)
    return 0 if count is None or len(node.inputs) < 2 else count(node, dimensions or {})


def total_macs(model: ir.Model, dimensions: Mapping[str, int] | None = None) -> int:
    """Multiply-accumulates of the main graph."""
    return sum(macs(node, dimensions) for node in model.graph)


def _shape(value: ir.Value | None, dimensions: Mapping[str, int]) -> tuple[int, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(
        item if isinstance(item, int) else max(dimensions.get(str(item.value), 1), 1) for item in value.shape
    )


def _conv(node: ir.Node, dimensions: Mapping[str, int]) -> int:
    weight, output = _shape(node.inputs[1], dimensions), _shape(node.outputs[0], dimensions)
    return 0 if weight is None or output is None else math.prod(output) * math.prod(weight[1:])


def _conv_transpose(node: ir.Node, dimensions: Mapping[str, int]) -> int:
    weight, data = _shape(node.inputs[1], dimensions), _shape(node.inputs[0], dimensions)
    return 0 if weight is None or data is None else math.prod(data) * math.prod(weight[1:])


def _gemm(node: ir.Node, dimensions: Mapping[str, int]) -> int:
    data, weight = _shape(node.inputs[0], dimensions), _shape(node.inputs[1], dimensions)
    if data is None or weight is None or len(data) != 2 or len(weight) != 2:
        return 0
    transposed = node.attributes.get("transB")
    columns = weight[0] if transposed is not None and transposed.as_int() else weight[1]
    return math.prod(data) * columns


def _matmul(node: ir.Node, dimensions: Mapping[str, int]) -> int:
    data, output = _shape(node.inputs[0], dimensions), _shape(node.outputs[0], dimensions)
    return 0 if not data or output is None else math.prod(output) * data[-1]
