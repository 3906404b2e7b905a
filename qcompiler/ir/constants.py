"""Read constants: initializers, and outputs of ``Constant`` nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.operators import has_type

__all__ = ["array", "is_constant", "scalar", "tensor"]


def tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor a value is known to be, data still on disk; ``None`` when it is computed or fed.

    An initializer that is also a graph input is only a default that a feed may override: it is no constant.
    """
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    if not has_type(producer, "Constant") or producer is None:
        return None
    return _of_constant_node(producer)


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is known at compile time."""
    return tensor(value) is not None


def array(value: ir.Value | None) -> NDArray[Any] | None:
    """The content of a constant value as an array in its own shape (read-only); ``None`` when it is no constant."""
    found = tensor(value)
    return None if found is None else found.numpy()


def scalar(value: ir.Value | None) -> float | int | None:
    """The content of a constant with exactly one element, of any rank; ``None`` for everything else."""
    found = tensor(value)
    if found is None or found.size != 1 or found.dtype == ir.DataType.STRING:
        return None
    item = found.numpy().reshape(())
    return int(item) if found.dtype.is_integer() or found.dtype == ir.DataType.BOOL else float(item)


def _of_constant_node(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor in one of the attributes that ``Constant`` allows; sparse tensors are not read."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return attribute.as_tensor()
        if name in ("value_float", "value_floats"):
            return ir.Tensor(np.array(attribute.value, np.float32))
        if name in ("value_int", "value_ints"):
            return ir.Tensor(np.array(attribute.value, np.int64))
    return None
