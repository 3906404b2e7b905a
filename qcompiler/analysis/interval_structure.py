"""Intervals through operators that move, or pick data: channels survive where the layout lets them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.interval import Interval, epsilon, unbounded
from qcompiler.analysis.interval_elementwise import join
from qcompiler.analysis.interval_pooling import averaged, lowered
from qcompiler.ir import constants, patterns
from qcompiler.quant.operators import looks_up_rows
from qcompiler.target.qdq import row_codes

if TYPE_CHECKING:
    from qcompiler.analysis.intervals import Intervals, Rule

__all__ = ["RULES"]


def _same(known: Intervals, node: ir.Node) -> Interval:
    """Elements are copied or repeated without leaving their channel."""
    return known.of(node.inputs[0])


def _blurred(known: Intervals, node: ir.Node) -> Interval:
    """Elements are copied across channels: one bound for all."""
    low, high = known.of(node.inputs[0]).hull
    return Interval(np.array([low]), np.array([high]))


def _pad(known: Intervals, node: ir.Node) -> Interval:
    data = known.of(node.inputs[0])
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        return data if mode.as_string() in ("edge", "reflect", "wrap") and data.axis is None else _blurred(known, node)
    fill = patterns.number(node, "value", 0.0)
    low = high = fill
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        low, high = known.of(node.inputs[2]).hull
    pads = constants.array(node.inputs[1]) if len(node.inputs) > 1 else patterns.integers(node, "pads")
    if pads is None or len(node.inputs) > 3 or not _keeps_channels(data, [int(pad) for pad in pads]):
        data = _blurred(known, node)
    elif not any(int(pad) > 0 for pad in pads):
        return data
    return Interval(np.minimum(data.low, low), np.maximum(data.high, high), data.axis)


def _keeps_channels(data: Interval, pads: Sequence[int]) -> bool:
    half = len(pads) // 2
    return data.axis is None or (pads[data.axis] == 0 and pads[data.axis + half] == 0)


def _transpose(known: Intervals, node: ir.Node) -> Interval:
    data = known.of(node.inputs[0])
    if data.axis is None:
        return data
    order = patterns.integers(node, "perm")
    rank = patterns.rank(node.inputs[0])
    if order is None:
        order = None if rank is None else tuple(reversed(range(rank)))
    return lowered(data, None if order is None else order.index(data.axis))


def _reshape(known: Intervals, node: ir.Node) -> Interval:
    """Reshape, Flatten, Squeeze, Unsqueeze: channels keep their axis, or are repeated when the rest joins them."""
    data = known.of(node.inputs[0])
    before, after = patterns.static_shape(node.inputs[0]), patterns.static_shape(node.outputs[0])
    if data.axis is None or before is None or after is None:
        return lowered(data, None)
    inner = _size(before[data.axis + 1 :])
    if inner is None or before[data.axis] != data.low.size:
        return lowered(data, None)
    for axis in range(len(after) - 1, -1, -1):
        behind = _size(after[axis + 1 :])
        if behind is None:
            break
        if behind == inner and after[axis] == data.low.size:
            return Interval(data.low, data.high, axis)
        if behind == 1 and after[axis] == data.low.size * inner:
            return Interval(np.repeat(data.low, inner), np.repeat(data.high, inner), axis)
    return lowered(data, None)


def _size(sizes: Sequence[int | None]) -> int | None:
    """The product of known dimensions; ``None`` when one is not known."""
    return None if any(size is None for size in sizes) else math.prod(size for size in sizes if size is not None)


def _concat(known: Intervals, node: ir.Node) -> Interval:
    values = list(node.inputs)
    items = [known.of(value) for value in values]
    rank = next((found for value in (*values, node.outputs[0]) if (found := patterns.rank(value)) is not None), None)
    axis = patterns.integer(node, "axis", 0)
    axis = axis if axis >= 0 or rank is None else axis + rank
    joined = next((item.axis for item in items if item.axis is not None), None)
    if joined != axis or axis < 0:
        return join(known, node, values)
    parts = []
    for value, item in zip(values, items, strict=True):
        shape = patterns.static_shape(value)
        size = item.low.size if item.axis == axis else None if shape is None else shape[axis]
        if size is None:
            return join(known, node, values)
        parts.append(item.along(axis, size))
    return Interval(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), axis)


def _split(known: Intervals, node: ir.Node) -> Sequence[Interval]:
    data, rank = known.of(node.inputs[0]), patterns.rank(node.inputs[0])
    axis = patterns.integer(node, "axis", 0)
    axis = axis if axis >= 0 or rank is None else axis + rank
    if data.axis is None or (data.axis != axis and axis >= 0):
        return [data] * len(node.outputs)
    shapes = [patterns.static_shape(value) for value in node.outputs]
    sizes = [None if shape is None else shape[axis] for shape in shapes]
    known_sizes = [size for size in sizes if size is not None]
    if len(known_sizes) != len(sizes) or sum(known_sizes) != data.low.size:
        return [_blurred(known, node)] * len(node.outputs)
    ends = np.cumsum(known_sizes)[:-1]
    pairs = zip(np.split(data.low, ends), np.split(data.high, ends), strict=True)
    return [Interval(low, high, axis) for low, high in pairs]


def _slice(known: Intervals, node: ir.Node) -> Interval:
    data, rank = known.of(node.inputs[0]), patterns.rank(node.inputs[0])
    if len(node.inputs) <= 3:
        axes = patterns.integers(node, "axes")
    else:
        array = constants.array(node.inputs[3])
        axes = None if array is None else tuple(int(axis) for axis in array.ravel())
    if axes is None or rank is None or data.axis in {axis % rank for axis in axes}:
        return _blurred(known, node)
    return data


def _gather(known: Intervals, node: ir.Node) -> Interval:
    """A lookup; in a constant table ``[V, D]`` each column keeps its own range."""
    table = _table(node.inputs[0])
    indices = patterns.rank(node.inputs[1])
    if table is None or table.ndim != 2 or indices is None or not looks_up_rows(node) or not table.size:
        return _blurred(known, node)
    return Interval(table.min(0).astype(np.float64), table.max(0).astype(np.float64), indices)


def _table(value: ir.Value | None) -> NDArray[Any] | None:
    """The content of a constant, or of constant codes with a scale per row."""
    codes = row_codes(value)
    if codes is None or codes.scale is None:
        return constants.array(value)
    stored = constants.array(codes.value)
    return None if stored is None else stored.astype(np.float32) * codes.scale[:, None]


def _resize(known: Intervals, node: ir.Node) -> Interval:
    """Nearest copies, linear averages; cubic overshoots."""
    mode = node.attributes.get("mode")
    kind = "nearest" if mode is None else mode.as_string()
    place = node.attributes.get("coordinate_transformation_mode")
    if kind == "cubic" or (place is not None and place.as_string() == "tf_crop_and_resize"):
        return unbounded()
    shape, after = patterns.static_shape(node.inputs[0]), patterns.static_shape(node.outputs[0])
    data = known.of(node.inputs[0])
    if data.axis is not None and (shape is None or after is None or shape[data.axis] != after[data.axis]):
        data = _blurred(known, node)
    return data if kind == "nearest" else averaged(data, node.outputs[0], 8, with_zero=False)


def _dequantize(_known: Intervals, node: ir.Node) -> Interval:
    """The range of the integer type, read back; of a constant, the range of its codes."""
    scale = constants.scalar(node.inputs[1])
    zero = constants.scalar(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else 0
    codes = node.inputs[0]
    dtype = None if codes is None else codes.dtype
    if scale is None or zero is None or dtype is None or not dtype.is_integer() or dtype.bitwidth > 16:
        return unbounded()
    signed = dtype.is_signed()
    ends = (-(2 ** (dtype.bitwidth - 1)), 2 ** (dtype.bitwidth - 1) - 1) if signed else (0, 2**dtype.bitwidth - 1)
    low, high = sorted((end - zero) * scale for end in ends)
    slack = epsilon(node.outputs[0]) * max(abs(low), abs(high))
    return Interval(np.array([low - slack]), np.array([high + slack]))


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "DepthToSpace": _blurred,
    "DequantizeLinear": _dequantize,
    "Dropout": _same,
    "Expand": _blurred,
    "Flatten": _reshape,
    "Gather": _gather,
    "GatherElements": _blurred,
    "GatherND": _blurred,
    "Identity": _same,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _blurred,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _blurred,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
