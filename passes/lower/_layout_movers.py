"""Channels last for standard operators on codes: they move, choose, cut and join what others computed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array
from qcompiler.ir.edit import Edit
from qcompiler.ir.patterns import static_shape
from qcompiler.passes.lower._layout_axes import last_axis, to_last, turned
from qcompiler.passes.lower._layout_turns import (
    Rule,
    StaysFirst,
    Turn,
    constants,
    image_inputs,
    image_rank,
    kept_axes,
    turn_constants,
)
from qcompiler.passes.lower._windows import Windows, windows_of
from qcompiler.passes.lower.site import FORMATS, NoIntegerForm
from qcompiler.quant.functions.definition import DOMAIN

__all__ = ["RULES"]


def _elementwise(node: ir.Node) -> Turn:
    """Operators whose elements depend on the elements beside them."""
    rank = image_rank(node.outputs[0])
    everything = range(len(node.inputs))
    reads = image_inputs(node, rank, everything)
    if not reads:
        raise StaysFirst("it reads no image")
    held = constants(node, [index for index in everything if array(node.inputs[index]) is not None], rank=rank)
    return Turn(reads, True, functools.partial(turn_constants, node, held, rank))


def _concat(node: ir.Node) -> Turn:
    """Concat: another axis; constants move as well."""
    rank = image_rank(node.outputs[0])
    reads = image_inputs(node, rank, range(len(node.inputs)))
    if not reads:
        raise StaysFirst("it reads no image")
    axis = last_axis(node.attributes["axis"].as_int(), rank)

    def apply(edit: Edit) -> None:
        for index, value in enumerate(node.inputs):
            if value is not None and index not in reads and (content := array(value)) is not None:
                moved = np.ascontiguousarray(content.transpose(to_last(rank)))
                edit.set_input(node, index, edit.constant(f"{value.name}_last", moved))
                edit.remove_unused([value])
        edit.set_attribute(node, "axis", axis)

    return Turn(reads, True, apply)


def _split(node: ir.Node) -> Turn:
    """Split: another axis."""
    rank = image_rank(node.inputs[0])
    axis = last_axis(node.attributes.get_int("axis", 0), rank)
    return Turn((0,), True, lambda edit: edit.set_attribute(node, "axis", axis))


def _pad(node: ir.Node) -> Turn:
    """Pad: begins and ends in the order of the axes.

    Those that it names are written in full: ONNX Runtime moves Transposes, those of function bodies included, through a
    Pad as if it named none (1.31.1: the session fails).
    """
    rank = image_rank(node.inputs[0])
    pads = array(node.inputs[1])
    if pads is None:
        raise StaysFirst("how much it pads is computed")
    axes = _named(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else tuple(range(rank))
    sides = np.zeros((2, rank), np.int64)
    sides[:, [last_axis(axis, rank) for axis in axes]] = pads.reshape(2, -1)
    return Turn((0,), True, functools.partial(_padded, node, sides.reshape(-1)))


def _padded(node: ir.Node, sides: NDArray[np.int64], edit: Edit) -> None:
    _other_constant(node, 1, sides, edit)
    if len(node.inputs) > 3 and (named := node.inputs[3]) is not None:
        edit.set_input(node, 3, None)
        edit.remove_unused([named])


def _slice(node: ir.Node) -> Turn:
    """Slice: other axes."""
    rank = image_rank(node.inputs[0])
    starts = array(node.inputs[1])
    if starts is None:
        raise StaysFirst("where it starts is computed")
    axes = _named(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else tuple(range(starts.size))
    return Turn((0,), True, functools.partial(_other_axes, node, 3, axes, rank))


def _extreme(node: ir.Node) -> Turn:
    """ReduceMax, ReduceMin: other axes."""
    rank = image_rank(node.inputs[0])
    axes = _named(node, 1)
    writes = bool(node.attributes.get_int("keepdims", 1)) or kept_axes(axes, rank)
    return Turn((0,), writes, functools.partial(_other_axes, node, 1, axes, rank))


def _extreme_index(node: ir.Node) -> Turn:
    """ArgMax, ArgMin: another axis."""
    rank = image_rank(node.inputs[0])
    axis = node.attributes.get_int("axis", 0)
    writes = bool(node.attributes.get_int("keepdims", 1)) or kept_axes([axis], rank)
    return Turn((0,), writes, lambda edit: edit.set_attribute(node, "axis", last_axis(axis, rank)))


def _squeeze(node: ir.Node) -> Turn:
    """Squeeze: other axes."""
    rank = image_rank(node.inputs[0])
    axes = _named(node, 1)
    return Turn((0,), kept_axes(axes, rank), functools.partial(_other_axes, node, 1, axes, rank))


def _named(node: ir.Node, index: int) -> tuple[int, ...]:
    """Axes that a constant input lists."""
    content = array(node.inputs[index]) if index < len(node.inputs) else None
    if content is None:
        raise StaysFirst("its axes are not written in it")
    return tuple(int(axis) for axis in content.reshape(-1))


def _other_axes(node: ir.Node, index: int, axes: Sequence[int], rank: int, edit: Edit) -> None:
    """Name other axes, one by one in the order they had."""
    _other_constant(node, index, np.array([last_axis(axis, rank) for axis in axes], np.int64), edit)


def _other_constant(node: ir.Node, index: int, content: NDArray[np.int64], edit: Edit) -> None:
    old = node.inputs[index] if index < len(node.inputs) else None
    edit.set_input(node, index, edit.constant(f"{node.name}_last", content))
    if old is not None:
        edit.remove_unused([old])


def _max_pool(node: ir.Node) -> Turn:
    """MaxPool: one QMaxPool for each axis; runtimes have no MaxPool with channels last."""
    image_rank(node.inputs[0])
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        raise StaysFirst("the places of its maxima are read")
    source = node.inputs[0]
    if source is None or source.dtype is None or source.dtype not in FORMATS:
        raise StaysFirst("it reads no 8- or 16-bit codes")
    sizes = static_shape(source)
    try:
        windows = windows_of(node, () if sizes is None else sizes[2:])
    except NoIntegerForm as reason:
        raise StaysFirst(str(reason)) from reason
    shapes = [None if value.shape is None else list(turned(list(value.shape))) for value in (source, node.outputs[0])]
    return Turn((0,), True, functools.partial(_max_along_axes, node, windows, source.dtype, shapes))


def _max_along_axes(
    node: ir.Node, windows: Windows, dtype: ir.DataType, shapes: Sequence[list[int | ir.SymbolicDim] | None], edit: Edit
) -> None:
    """The node becomes the last of the operators; those of the other axes come before it.

    Args:
        node: The MaxPool.
        windows: Its windows.
        dtype: Type of the codes.
        shapes: Of its input and its result, channels last.
        edit: The mutation interface.
    """
    shape, result = shapes
    columns = zip(windows.kernel, windows.strides, windows.dilations, windows.begins, windows.ends, strict=True)
    steps = [(axis, step) for axis, step in enumerate(columns, 1) if step[:2] != (1, 1) or any(step[3:])]
    steps = steps or [(1, (1, 1, 1, 0, 0))]
    for axis, step in steps[:-1]:
        value = edit.insert(
            "QMaxPool", [node.inputs[0]], domain=DOMAIN, before=node, attributes=_window(axis, step, dtype),
            name=f"{node.name}_axis{axis}",
        ).outputs[0]  # fmt: skip
        if shape is not None:
            shape[axis] = ir.SymbolicDim(None) if result is None else result[axis]
            value.shape = ir.Shape(shape)
        value.type = ir.TensorType(dtype)
        edit.set_input(node, 0, value)
    for name in list(node.attributes):
        edit.set_attribute(node, name, None)
    for name, number in _window(*steps[-1], dtype).items():
        edit.set_attribute(node, name, number)
    edit.set_operator(node, "QMaxPool", DOMAIN)


def _window(axis: int, step: Sequence[int], dtype: ir.DataType) -> dict[str, int]:
    names = ("kernel", "stride", "dilation", "begin", "end")
    return {"axis": axis, **dict(zip(names, step, strict=True)), "to": dtype.value}


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        **dict.fromkeys(("Cast", "Clip", "Identity", "Max", "Min", "Relu", "Where"), _elementwise),
        "ArgMax": _extreme_index,
        "ArgMin": _extreme_index,
        "Concat": _concat,
        "MaxPool": _max_pool,
        "Pad": _pad,
        "ReduceMax": _extreme,
        "ReduceMin": _extreme,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
    }
)
"""Rules by standard operator. What is not listed keeps its layout."""
