"""Whether a feed is what a model's inputs ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError, nearest

__all__ = ["check_feed"]


def check_feed(graph: ir.Graph, feed: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The feed as arrays.

    Args:
        graph: The graph to be run. Inputs with an initializer have a default and may be left out.
        feed: Arrays by input name.

    Raises:
        DataError: A name is unknown or missing, an array has another type or shape than its input, or holds NaN, which
            has no code: a runtime makes the least or any other of it.
    """
    inputs = {str(value.name): value for value in graph.inputs}
    for name in feed:
        if name not in inputs:
            hint = nearest(name, inputs) or f"inputs: {', '.join(inputs)}"
            raise DataError(f"the model has no input '{name}'", hint=hint)
    optional = graph.initializers
    if missing := [name for name in inputs if name not in feed and name not in optional]:
        raise DataError(f"the feed lacks {', '.join(missing)}", hint="give one array for each input")
    arrays = {name: np.asarray(array) for name, array in feed.items()}
    sizes: dict[str, tuple[str, int]] = {}
    for name, array in arrays.items():
        _check_type(inputs[name], array)
        _check_shape(inputs[name], array, sizes)
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise DataError("it holds NaN, which has no integer code", where=f"input '{name}'")
    return arrays


def _check_type(value: ir.Value, array: NDArray[Any]) -> None:
    if value.dtype is None or value.dtype == ir.DataType.STRING:
        return
    wanted = value.dtype.numpy()
    if array.dtype != wanted:
        raise DataError(f"it holds {array.dtype.name}, the model wants {wanted.name}", where=f"input '{value.name}'")


def _check_shape(value: ir.Value, array: NDArray[Any], sizes: dict[str, tuple[str, int]]) -> None:
    """Rank, fixed sizes, and equal sizes for axes of one symbol over all inputs."""
    if value.shape is None:
        return
    where = f"input '{value.name}'"
    wanted = [item if isinstance(item, int) else item.value for item in value.shape]
    text = f"[{', '.join('?' if item is None else str(item) for item in wanted)}]"
    fits = len(wanted) == array.ndim and all(
        not isinstance(want, int) or want == size for want, size in zip(wanted, array.shape, strict=True)
    )
    if not fits:
        raise DataError(f"its shape is {list(array.shape)}, the model wants {text}", where=where)
    for symbol, size in zip(wanted, array.shape, strict=True):
        if isinstance(symbol, str):
            other, known = sizes.setdefault(symbol, (str(value.name), size))
            if known != size:
                raise DataError(f"'{symbol}' is {size} here and {known} in input '{other}'", where=where)
