"""Tensors made from tensors: large ones only when they are read, so that weights stay on disk until they are saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.edit import Edit

__all__ = ["transformed"]


def transformed(
    edit: Edit,
    source: ir.TensorProtocol,
    function: Callable[[NDArray[Any]], NDArray[Any]],
    shape: Sequence[int],
    dtype: ir.DataType | None = None,
) -> ir.TensorProtocol:
    """``function`` of a tensor; computed when it is read where the tensor is large (``Edit.lazy_above``).

    Args:
        edit: The edits of the running pipeline.
        source: The tensor.
        function: From its array to the new array.
        shape: Shape of the result.
        dtype: Element type of the result; by default that of the source.
    """
    target = dtype or source.dtype

    def compute() -> ir.TensorProtocol:
        result = np.ascontiguousarray(function(source.numpy()).reshape(tuple(shape)))
        return ir.Tensor(result.astype(target.numpy(), copy=False), dtype=target)

    if source.nbytes < edit.lazy_above:
        return compute()
    return ir.LazyTensor(compute, dtype=target, shape=ir.Shape(shape))
