"""QLogQuantize and QLogDequantize: codes of few bits on grids whose steps grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnx_ir as ir

from qcompiler.quant.functions.definition import Operator, TensorType
from qcompiler.quant.integer import logarithmic

__all__ = ["OPERATORS"]

# The last Reshape changes nothing, but ONNX shape inference loses the shape in the reduction.
_QUANTIZE = """
last = Constant <value_ints = [-1]> ()
x32 = Cast <to = 6> (x)
each = Unsqueeze (x32, last)
borders = Cast <to = 6> (thresholds)
reached = GreaterOrEqual (each, borders)
reached_32 = Cast <to = 6> (reached)
count = ReduceSum <keepdims = 0> (reached_32, last)
dims = Shape (x)
same = Reshape (count, dims)
y = Cast <to = 3> (same)
"""

_DEQUANTIZE = """
code = Cast <to = 7> (x)
none = Constant <value = int64 {0}> ()
one = Constant <value = int64 {1}> ()
size_1 = Shape (values)
size = ReduceMax <keepdims = 0> (size_1)
most = Sub (size, one)
under = Less (code, none)
raised = Where (under, none, code)
over = Greater (raised, most)
index = Where (over, most, raised)
y = Gather (values, index)
"""


def _infer_quantize(types: Sequence[TensorType], _: Mapping[str, Any]) -> TensorType:
    return TensorType(ir.DataType.INT8, types[0].shape)


def _infer_dequantize(types: Sequence[TensorType], _: Mapping[str, Any]) -> TensorType:
    return TensorType(ir.DataType.INT16, types[0].shape)


OPERATORS: Final = (
    Operator(
        name="QLogQuantize",
        formula="number of thresholds that are <= x",
        inputs=("x", "thresholds"),
        types={"x": "int8 int16", "thresholds": "the type of x, 1 to 127 ascending entries"},
        attributes={},
        body=_QUANTIZE,
        specification=logarithmic.log_quantize,
        infer=_infer_quantize,
        bound="0",
    ),
    Operator(
        name="QLogDequantize",
        formula="values[clip(x, 0, size - 1)]",
        inputs=("x", "values"),
        types={"x": "int8", "values": "int16, 2 to 128 entries"},
        attributes={},
        body=_DEQUANTIZE,
        specification=logarithmic.log_dequantize,
        infer=_infer_dequantize,
        bound="0",
    ),
)
