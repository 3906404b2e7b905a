"""Put channels into a new order: the constants of every layer that makes or reads them, and what lies in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import patterns
from qcompiler.ir.edit import Edit
from qcompiler.ir.statistics import set_statistics, statistics
from qcompiler.ir.transformed import transformed
from qcompiler.passes.equalize._apply import APPLIED
from qcompiler.passes.equalize._labels import Names, vector
from qcompiler.passes.equalize._names import rename
from qcompiler.passes.equalize._orders import places
from qcompiler.passes.equalize._permuting import Permuting
from qcompiler.passes.normalize._rewrite import own_constant, tensor_shape

__all__ = ["reorder"]

_SUFFIX: Final = "_permuted"
_Places = NDArray[np.intp]


def reorder(found: Permuting, names: Names, edit: Edit) -> None:
    """Give every place the content that ``names`` says.

    Args:
        found: The channels of the graph.
        names: For every label the one whose content takes its place.
        edit: The mutation interface.
    """
    for node, made in found.makers.items():
        rows, columns = places(made, names), places(found.readers[node], names)
        _layer(node, rows, columns, edit)
    for node, index, labels in found.constants:
        moved = places(labels.reshape(-1), names)
        if not _still(moved):
            _change(node, index, _along(labels, moved), edit)
    for value in found.labels.values():
        labels = found.labels.of(value)
        if (names[labels] != labels).any():
            _keep_account(value, labels, names, edit)


def _still(moved: _Places) -> bool:
    return bool((moved == np.arange(moved.size)).all())


def _keep_account(value: ir.Value, labels: Names, names: Names, edit: Edit) -> None:
    """Put what is known of a tensor's channels into the new order, and give it another name."""
    shape = patterns.static_shape(value)
    size = None if shape is None or len(shape) < 2 else shape[1]
    along = None if size is None else vector(labels, 1, size)
    if along is not None:
        moved = places(along, names)
        if (known := statistics(value)) is not None:
            set_statistics(value, known[0][moved], known[1][moved])
        if (done := value.meta.get(APPLIED)) is not None:
            value.meta[APPLIED] = np.asarray(done)[moved]
    rename(value, _SUFFIX, edit)


def _layer(node: ir.Node, rows: _Places, columns: _Places, edit: Edit) -> None:
    """Rows (outputs) and columns (inputs) of the weight, and the bias."""
    if _still(rows) and _still(columns):
        return
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not patterns.integer(node, "transB", 0)):
        _change(node, 1, lambda data: data[np.ix_(columns, rows)], edit)
    elif node.op_type == "Gemm":
        _change(node, 1, lambda data: data[np.ix_(rows, columns)], edit)
    else:
        groups = patterns.integer(node, "group", 1)
        outer, inner = (rows, columns) if node.op_type == "Conv" else (columns, rows)
        _change(node, 1, _grouped(outer, inner, groups), edit)
    if len(node.inputs) > 2 and node.inputs[2] is not None and not _still(rows):
        _change(node, 2, lambda data: data[rows], edit)


def _grouped(outer: _Places, inner: _Places, groups: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Of a kernel ``[outer, inner / groups, …]``: axis 0 runs group by group, axis 1 within the group of axis 0."""
    within = inner.reshape(groups, -1) % (inner.size // groups)
    picked = np.repeat(within, outer.size // groups, axis=0)

    def change(data: NDArray[Any]) -> NDArray[Any]:
        chosen = data[outer]
        index = picked.reshape(*picked.shape, *[1] * (data.ndim - 2))
        return np.asarray(np.take_along_axis(chosen, np.broadcast_to(index, chosen.shape), axis=1))

    return change


def _along(labels: Names, moved: _Places) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Elements of a constant along the axes of its labels, taken together."""
    axes = [axis for axis, size in enumerate(labels.shape) if size > 1]

    def change(data: NDArray[Any]) -> NDArray[Any]:
        last = np.moveaxis(data, axes, range(-len(axes), 0))
        flat = last.reshape(*last.shape[: last.ndim - len(axes)], -1)[..., moved]
        return np.asarray(np.moveaxis(flat.reshape(last.shape), range(-len(axes), 0), axes))

    return change


def _change(node: ir.Node, index: int, change: Callable[[NDArray[Any]], NDArray[Any]], edit: Edit) -> None:
    constant = own_constant(edit, node, index)
    source = constant.const_value
    if source is None:
        raise ValueError(f"input {index} of {node.name} is not a constant")
    shape: Sequence[int] = tensor_shape(source)
    edit.set_constant(constant, transformed(edit, source, change, shape))
