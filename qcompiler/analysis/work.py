"""How much a node computes: multiply-accumulate operations from its shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import onnx_ir as ir

from qcompiler.analysis.accumulators import family
from qcompiler.quant.functions.definition import DOMAIN

__all__ = ["macs", "total_macs"]


def macs(node: ir.Node, dimensions: Mapping[str, int] | None = None) -> int:
    """Multiply-accumulates of one node; 0 for operators other than convolutions and matrix products.

    Args:
        node: The node; the shapes of its values are inferred.
        dimensions: Sizes of symbolic dimensions. Those not listed count as 1, so that figures hold per sample; nodes
            whose rank is not known count 0.
    """
    count = _COUNTS.get(family(node.op_type) if node.domain == DOMAIN else node.op_type)
    return 0 if count is None or len(node.inputs) < 2 else count(node, dimensions or {})


def total_macs(model: ir.Model, dimensions: Mapping[str, int] | None = None) -> int:
    """Multiply-accumulates of the main graph."""
    return sum(macs(node, dimensions) for node in model.graph)


def _shape(value: ir.Value | None, dimensions: Mapping[str, int]) -> tuple[int, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(item if isinstance(item, int) else max(dimensions.get(str(item.value), 1), 1) for item in value.shape)


def _weight_shape(node: ir.Node, dimensions: Mapping[str, int]) -> tuple[int, ...] | None:
    """Shape of the weight; that of packed codes is written on the node."""
    logical = node.attributes.get("weight_shape")
    return tuple(logical.as_ints()) if logical is not None else _shape(node.inputs[1], dimensions)


def _conv(node: ir.Node, dimensions: Mapping[str, int]) -> int:
    weight, output = _weight_shape(node, dimensions), _shape(node.outputs[0], dimensions)
    return 0 if weight is None or output is None else math.prod(output) * math.prod(weight[1:])


def _conv_transpose(node: ir.Node, dimensions: Mapping[str, int]) -> int:
    weight, data = _weight_shape(node, dimensions), _shape(node.inputs[0], dimensions)
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


def _qgemm(node: ir.Node, dimensions: Mapping[str, int]) -> int:
    data, weight = _shape(node.inputs[0], dimensions), _weight_shape(node, dimensions)
    if not data or weight is None:
        return 0
    return math.prod(data) * (weight[0] if "weight_shape" in node.attributes else weight[-1])  # packed: rows first


_COUNTS: Final[dict[str, Callable[[ir.Node, Mapping[str, int]], int]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "QConv": _conv,
    "QConvChannelsLast": _conv,
    "QConvTranspose": _conv_transpose,
    "QGemm": _qgemm,
    "QMatMul": _matmul,
    "QMatMulWeightOnly": _qgemm,
}
