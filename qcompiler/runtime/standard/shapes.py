"""Operators that make tensors of sizes and counts."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.runtime.standard.kernel import Array, ElsewhereError, Inputs, Kernel, Node, fitted, given

__all__ = ["KERNELS"]


def _shape(node: Node, inputs: Inputs) -> Array:
    sizes = given(inputs, 0).shape
    end = node.attributes.get("end")
    return np.array(sizes[node.integer("start", 0) : None if end is None else int(end)], np.int64)


def _size(node: Node, inputs: Inputs) -> Array:
    del node
    return np.array(given(inputs, 0).size, np.int64)


def _range(node: Node, inputs: Inputs) -> Array:
    del node
    start, limit, step = (given(inputs, index) for index in range(3))
    if not np.issubdtype(start.dtype, np.integer):
        raise ElsewhereError  # the rounding of every element matters
    return np.arange(int(start.item()), int(limit.item()), int(step.item()), dtype=start.dtype)


def _constant_of_shape(node: Node, inputs: Inputs) -> Array:
    sizes = [int(size) for size in given(inputs, 0).reshape(-1)]
    value = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value.numpy()).reshape(-1)
    return np.full(sizes, fill[0], fill.dtype)


def _constant(node: Node, inputs: Inputs) -> Array:
    del inputs
    for name, value in node.attributes.items():
        if name == "value":
            content: Array = value.numpy()
            return content
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
    raise ElsewhereError


def _cast(node: Node, inputs: Inputs) -> Array:
    """Between integers (and from booleans) without loss; the roundings of floats are ONNX's business."""
    data = given(inputs, 0)
    dtype = ir.DataType(node.integer("to", 1)).numpy()
    if data.dtype == dtype:
        return data
    if data.dtype == np.bool_:
        return data.astype(dtype)
    if not (np.issubdtype(data.dtype, np.integer) and np.issubdtype(dtype, np.integer)):
        raise ElsewhereError
    return fitted(data, dtype)


KERNELS: Final[dict[str, Kernel]] = {
    "Cast": _cast,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Shape": _shape,
    "Size": _size,
}
