"""Channels last, operator by operator: convolutions, pools, elementwise operators and those with axes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import onnx_ir as ir

from qcompiler.ir.constants import array
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower._layout_axes import last_axis
from qcompiler.passes.lower._layout_turns import (
    Rule,
    StaysFirst,
    Turn,
    constants,
    image_inputs,
    image_rank,
    kept_axes,
    mapped_axes,
    set_attributes,
    turn_constants,
)

__all__ = ["RULES"]

_LAST: Final = "ChannelsLast"


def _convolution(node: ir.Node) -> Turn:
    """QConv: the same operator with channels last; weights stay, bias and factors get one axis."""
    rank = image_rank(node.inputs[0])
    held = constants(node, range(2, len(node.inputs)), most=1, rank=rank)
    return Turn((0,), True, functools.partial(_renamed, node, "QConv", held, rank, {}))


def _average_pool(node: ir.Node) -> Turn:
    """QAveragePool: factors over output positions stand beside every channel."""
    rank = image_rank(node.inputs[0])
    held = constants(node, range(1, len(node.inputs)))
    return Turn((0,), True, functools.partial(_renamed, node, "QAveragePool", held, rank, {}))


def _renamed(
    node: ir.Node, base: str, held: tuple[int, ...], rank: int, attributes: dict[str, tuple[int, ...]], edit: Edit
) -> None:
    ending = node.op_type.removeprefix(base)
    _turn_factors(node, held, rank, edit)
    set_attributes(node, edit, dict(attributes))
    edit.set_operator(node, f"{base}{_LAST}{ending}", node.domain)


def _turn_factors(node: ir.Node, held: tuple[int, ...], rank: int, edit: Edit) -> None:
    """Constants of a rescale; of three the first two are digits."""
    digits = held[:2] if len(held) == 3 and node.op_type.endswith("Shift") else ()
    turn_constants(node, digits, rank, edit, digits=True)
    turn_constants(node, [index for index in held if index not in digits], rank, edit)


def _global_average_pool(node: ir.Node) -> Turn:
    """QGlobalAveragePool: a QReduceMean over the spatial axes."""
    rank = image_rank(node.inputs[0])
    held = constants(node, range(1, len(node.inputs)))
    return Turn((0,), True, functools.partial(_as_reduction, node, held, rank))


def _as_reduction(node: ir.Node, held: tuple[int, ...], rank: int, edit: Edit) -> None:
    _turn_factors(node, held, rank, edit)
    set_attributes(node, edit, {"axes": tuple(range(1, rank - 1)), "keepdims": 1})
    edit.set_operator(node, node.op_type.replace("QGlobalAveragePool", "QReduceMean"), node.domain)


def _reduction(node: ir.Node) -> Turn:
    """QReduceMean: other axes; its factors must be single numbers."""
    rank = image_rank(node.inputs[0])
    for index in constants(node, range(1, len(node.inputs))):
        content = array(node.inputs[index])
        if content is not None and content.ndim > (node.op_type.endswith("Shift") and index < 3):
            raise StaysFirst(f"its input {index} varies along its result")
    axes = tuple(node.attributes["axes"].as_ints())
    writes = bool(node.attributes.get_int("keepdims", 1)) or kept_axes(axes, rank)
    return Turn((0,), writes, functools.partial(_with_axes, node, axes, rank))


def _with_axes(node: ir.Node, axes: tuple[int, ...], rank: int, edit: Edit) -> None:
    edit.set_attribute(node, "axes", mapped_axes(axes, rank))


def _elementwise(node: ir.Node, *, first: int = 0, tables: tuple[int, ...] = ()) -> Turn:
    """Operators whose elements depend on the elements beside them."""
    rank = image_rank(node.outputs[0])
    others = [index for index in range(first, len(node.inputs)) if index not in tables]
    reads = image_inputs(node, rank, others)
    if not reads:
        raise StaysFirst("it reads no image")
    held = constants(node, [index for index in others if array(node.inputs[index]) is not None], rank=rank)
    return Turn(reads, True, functools.partial(turn_constants, node, held, rank))


def _lookup(node: ir.Node) -> Turn:
    """QLookup, QLookupInterpolated: the table stays."""
    return _elementwise(node, tables=(1,))


def _joined(node: ir.Node) -> Turn:
    """QConcat: another axis; its factors are single numbers."""
    for index in constants(node, range(2, len(node.inputs))):
        if (content := array(node.inputs[index])) is not None and content.size > 1:
            raise StaysFirst(f"its input {index} varies along its result")
    if any(array(value) is not None for value in node.inputs[:2]):
        raise StaysFirst("it joins a constant")
    return _along_axis(node, count=2)


def _along_axis(node: ir.Node, *, count: int = 1, default: int = 0) -> Turn:
    """Operators with an attribute ``axis`` that keep the axes they have."""
    rank = image_rank(node.inputs[0])
    reads = image_inputs(node, rank, range(count))
    if len(reads) < count:
        raise StaysFirst("one of its operands is constant or no image")
    axis = node.attributes.get_int("axis", default)

    def apply(edit: Edit) -> None:
        edit.set_attribute(node, "axis", last_axis(axis, rank))

    return Turn(reads, True, apply)


def _softmax(node: ir.Node) -> Turn:
    """QSoftmax: another axis; its factors are single numbers."""
    for index in constants(node, range(1, len(node.inputs))):
        if (content := array(node.inputs[index])) is not None and content.size > 1:
            raise StaysFirst(f"its input {index} varies along its result")
    return _along_axis(node)


def _resize(node: ir.Node) -> Turn:
    """QResize: another axis; the weights of the taps have an axis of size 1 for every axis behind it."""
    rank = image_rank(node.inputs[0])
    constants(node, range(1, len(node.inputs)))
    axis = last_axis(node.attributes["axis"].as_int(), rank)

    def apply(edit: Edit) -> None:
        weight = node.inputs[2]
        content = array(weight)
        if weight is None or content is None:
            return
        shaped = content.reshape(*content.shape[:2], *[1] * (rank - 1 - axis))
        if shaped.shape != content.shape:
            edit.set_input(node, 2, edit.constant(f"{weight.name}_last", shaped))
            edit.remove_unused([weight])
        edit.set_attribute(node, "axis", axis)

    return Turn((0,), True, apply)


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "QAdd": _elementwise,
        "QAveragePool": _average_pool,
        "QConcat": _joined,
        "QConv": _convolution,
        "QGlobalAveragePool": _global_average_pool,
        "QLookup": _lookup,
        "QLookupInterpolated": _lookup,
        "QMaxPool": _along_axis,
        "QMul": _elementwise,
        "QReduceMean": _reduction,
        "QResize": _resize,
        "QSoftmax": _softmax,
        "QSub": _elementwise,
        "Requantize": _elementwise,
    }
)
"""Rules by family of ``ai.qcompiler``. What is not listed keeps its layout."""
