"""QuantizeLinear and DequantizeLinear by the project's own arithmetic, and integer products of codes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir

from qcompiler.quant.arithmetic import dequantize, quantize
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams
from qcompiler.runtime.standard.kernel import Array, ElsewhereError, Inputs, Kernel, Node, fitted, given

__all__ = ["KERNELS"]

_FORMATS: Final = {
    ir.DataType.INT4: (4, True), ir.DataType.UINT4: (4, False), ir.DataType.INT8: (8, True),
    ir.DataType.UINT8: (8, False), ir.DataType.INT16: (16, True), ir.DataType.UINT16: (16, False),
    ir.DataType.INT32: (32, True),
}  # fmt: skip


def _form(node: Node, scale: Array, dtype: Any) -> QFormat:
    if scale.dtype != np.float32 or dtype not in _FORMATS:
        raise ElsewhereError
    bits, signed = _FORMATS[dtype]
    axis = None if scale.ndim == 0 or (scale.ndim == 1 and scale.size == 1) else node.integer("axis", 1)
    return QFormat(bits, signed, axis=axis, block=node.integer("block_size", 0) or None)


def _params(scale: Array, zero: Array | None, form: QFormat) -> QParams:
    if form.axis is None:
        scale = scale.reshape(())
        zero = None if zero is None else zero.reshape(())
    return QParams(scale, np.zeros(scale.shape, np.int32) if zero is None else zero.astype(np.int32))


def _quantize(node: Node, inputs: Inputs) -> Array:
    data, scale = given(inputs, 0), given(inputs, 1)
    zero = inputs[2] if len(inputs) > 2 else None
    wanted = node.integer("output_dtype", 0) or ir.DataType.UINT8
    dtype = ir.DataType(wanted) if zero is None else ir.DataType.from_numpy(zero.dtype)
    if data.dtype != np.float32:
        raise ElsewhereError
    form = _form(node, scale, dtype)
    if np.isnan(data).any():
        raise ElsewhereError
    return quantize(data, _params(scale, zero, form), form)


def _dequantize(node: Node, inputs: Inputs) -> Array:
    codes, scale = given(inputs, 0), given(inputs, 1)
    form = _form(node, scale, ir.DataType.from_numpy(codes.dtype))
    return dequantize(codes, _params(scale, inputs[2] if len(inputs) > 2 else None, form), form)


def _matmul_integer(node: Node, inputs: Inputs) -> Array:
    """Products of 8-bit codes are below 2^16, so float64 holds sums of 2^37 of them exactly."""
    del node
    first = _centred(inputs, 0, 2, rows=True)
    second = _centred(inputs, 1, 3, rows=False)
    return fitted(np.rint(first @ second).astype(np.int64), np.dtype(np.int32))


def _centred(inputs: Inputs, index: int, zero_index: int, *, rows: bool) -> Array:
    data = given(inputs, index).astype(np.float64)
    zero = inputs[zero_index] if len(inputs) > zero_index else None
    if zero is None:
        return data
    return data - (zero.astype(np.float64)[:, None] if rows and zero.ndim == 1 else zero.astype(np.float64))


KERNELS: Final[dict[str, Kernel]] = {
    "DequantizeLinear": _dequantize,
    "MatMulInteger": _matmul_integer,
    "QuantizeLinear": _quantize,
}
