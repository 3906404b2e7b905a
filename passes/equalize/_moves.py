"""What nodes that only move elements do to the labels of channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.ir import constants, patterns
from qcompiler.passes.equalize._layout import Layout

__all__ = ["MOVERS", "moved"]

_Result = list[Layout] | str


def moved(node: ir.Node, layouts: Mapping[ir.Value, Layout]) -> _Result:
    """Labels of every result of a node in ``MOVERS``, or why they cannot be said."""
    source = node.inputs[0]
    if node.op_type == "Concat":
        return _concat(node, layouts)
    if source is None or source not in layouts:
        return "it reads channels as indices"
    if any(value in layouts for value in node.inputs[1:] if value is not None):
        return "it reads channels as indices"
    return _MOVES[node.op_type](node, layouts[source])


def _concat(node: ir.Node, layouts: Mapping[ir.Value, Layout]) -> _Result:
    inputs = [value for value in node.inputs if value is not None]
    if any(value not in layouts for value in inputs):
        return "it joins channels with something else"
    axis = patterns.integer(node, "axis", 0)
    sizes = [(patterns.static_shape(value) or ())[axis] for value in inputs]
    joined = Layout.joined([layouts[value] for value in inputs], axis, sizes)
    return "it joins channels that lie differently" if joined is None else [joined]


def _reshape(node: ir.Node, layout: Layout) -> _Result:
    before, after = patterns.static_shape(node.inputs[0]), patterns.static_shape(node.outputs[0])
    found = None if before is None or after is None else layout.reshaped(before, after)
    return "it mixes channels with positions" if found is None else [found]


def _transpose(node: ir.Node, layout: Layout) -> _Result:
    rank = len(layout.parts)
    return [layout.transposed(patterns.integers(node, "perm") or tuple(reversed(range(rank))))]


def _slice(node: ir.Node, layout: Layout) -> _Result:
    operands = [constants.array(value) for value in node.inputs[1:]]
    starts, ends = operands[0], operands[1]
    if starts is None or ends is None or any(item is None for item in operands):
        return "what it cuts out is not constant"
    axes = operands[2] if len(operands) > 2 and operands[2] is not None else np.arange(starts.size)
    steps = operands[3] if len(operands) > 3 and operands[3] is not None else np.ones(starts.size, np.int64)
    for axis, start, end, step in zip(axes.tolist(), starts.tolist(), ends.tolist(), steps.tolist(), strict=True):
        part = layout.parts[axis]
        if part is not None:
            stop = None if step < 0 and end < -part.size else end
            layout = layout.taken(axis, np.arange(part.size)[start:stop:step])
    return [layout]


def _gather(node: ir.Node, layout: Layout) -> _Result:
    axis = patterns.integer(node, "axis", 0) % len(layout.parts)
    indices = constants.array(node.inputs[1])
    rank = patterns.rank(node.inputs[1])
    part = layout.parts[axis]
    if part is None:
        if rank is None:
            return "the rank of its indices is not known"
        parts = (*layout.parts[:axis], *[None] * rank, *layout.parts[axis + 1 :])
        return [Layout(parts, layout.base)]
    if indices is None or indices.ndim > 1:
        return "which channels it picks is not known"
    size = part.size
    if indices.ndim == 0:
        return [layout.picked(axis, int(indices) % size)]
    return [layout.taken(axis, indices.astype(np.int64) % size)]


def _split(node: ir.Node, layout: Layout) -> _Result:
    axis = patterns.integer(node, "axis", 0)
    found, start = [], 0
    for value in node.outputs:
        shape = patterns.static_shape(value)
        size = None if shape is None else shape[axis]
        if layout.parts[axis] is None:
            found.append(layout)
        elif size is None:
            return "the sizes of its parts are not known"
        else:
            found.append(layout.taken(axis, np.arange(start, start + size)))
            start += size
    return found


def _tile(node: ir.Node, layout: Layout) -> _Result:
    repeats = constants.array(node.inputs[1])
    if repeats is None:
        return "how often it repeats is not constant"
    return [layout.tiled(repeats.tolist())]


def _expand(node: ir.Node, layout: Layout) -> _Result:
    rank = patterns.rank(node.outputs[0])
    return "the rank of its result is not known" if rank is None else [layout.broadcast(rank)]


_MOVES: Final[dict[str, Callable[[ir.Node, Layout], _Result]]] = {
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": _gather,
    "Identity": lambda _, layout: [layout],
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
MOVERS: Final = (*_MOVES, "Concat")
"""Operators whose results hold nothing but elements of what they read."""
