"""Channels last through flattened images: positions in a row stay positions, rows of a sample are reordered weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array, is_constant
from qcompiler.ir.edit import Edit
from qcompiler.ir.patterns import static_shape
from qcompiler.passes.lower._layout_turns import Rule, StaysFirst, Turn, image_rank
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.packing import pack, unpack

__all__ = ["RULES"]

_WEIGHT: Final = 1


def _reshape(node: ir.Node) -> Turn:
    """Reshape that leaves the channels alone: positions get other axes; any other must give one row per sample."""
    result = static_shape(node.outputs[0])
    if result is None or len(result) < 3:
        return _flatten(node)
    sizes = _sizes(node)
    inner = [size for size in result[2:] if size is not None]
    if result[1] != sizes[0] or len(inner) < len(result) - 2 or math.prod(inner) != math.prod(sizes[1:]):
        raise StaysFirst("it does not leave the channels as they are")
    return Turn((0,), True, functools.partial(_other_sizes, node, [*inner, sizes[0]]))


def _flatten(node: ir.Node) -> Turn:
    """Flatten, Reshape to one row per sample.

    The order of a row changes with the layout, unless there is one channel or one position. Where all that reads the
    rows are products with constant weights, the weights are reordered along.
    """
    sizes, result = _sizes(node), static_shape(node.outputs[0])
    if result is None or len(result) != 2 or result[1] != math.prod(sizes):
        raise StaysFirst("its result is not one row per sample")
    apply = functools.partial(_other_sizes, node, [math.prod(sizes)])
    if sizes[0] == 1 or math.prod(sizes[1:]) == 1:
        return Turn((0,), False, apply)
    rows = node.outputs[0]
    readers = [(use.node, use.idx) for use in rows.uses()]
    if rows.is_graph_output() or not readers or not all(_multiplies(reader, index) for reader, index in readers):
        raise StaysFirst("its rows are read by something other than a product with constant weights")
    order = np.moveaxis(np.arange(math.prod(sizes)).reshape(sizes), 0, -1).reshape(-1)

    def reorder(edit: Edit) -> None:
        apply(edit)
        for reader, _ in readers:
            _reorder(reader, order, edit)

    return Turn((0,), False, reorder)


def _sizes(node: ir.Node) -> tuple[int, ...]:
    """Sizes of the channels and of the spatial axes of what is reshaped.

    Raises:
        StaysFirst: They are not known.
    """
    image_rank(node.inputs[0])
    sizes = static_shape(node.inputs[0])
    known = () if sizes is None else tuple(size for size in sizes[1:] if size is not None)
    if sizes is None or len(known) < len(sizes) - 1 or not math.prod(known):
        raise StaysFirst("the sizes of its image are not known")
    return known


def _multiplies(node: ir.Node, index: int) -> bool:
    return (
        node.domain == DOMAIN and node.op_type.startswith("QGemm") and index == 0 and is_constant(node.inputs[_WEIGHT])
    )


def _other_sizes(node: ir.Node, sizes: Sequence[int], edit: Edit) -> None:
    """Sizes behind the batch; a Reshape may have copied them from the image, where they are others now."""
    if node.op_type == "Reshape":
        old = node.inputs[1]
        edit.set_input(node, 1, edit.constant(f"{node.name}_rows", np.array([0, *sizes], np.int64)))
        edit.set_attribute(node, "allowzero", None)
        if old is not None:
            edit.remove_unused([old])


def _reorder(node: ir.Node, order: NDArray[np.int64], edit: Edit) -> None:
    """Let a product read its depth in another order."""
    weight = node.inputs[_WEIGHT]
    stored = array(weight)
    if weight is None or stored is None:
        return
    changed = _reordered(node, stored, order)
    edit.set_input(node, _WEIGHT, edit.constant(f"{weight.name}_last", changed))
    edit.remove_unused([weight])


def _reordered(node: ir.Node, stored: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    bits = node.attributes.get_int("bits", 0)
    if not bits:
        return np.ascontiguousarray(stored[order])
    shape = tuple(node.attributes["weight_shape"].as_ints())
    return pack(np.ascontiguousarray(unpack(stored, bits, shape)[:, order]), bits)


RULES: Final[Mapping[str, Rule]] = MappingProxyType({"Flatten": _flatten, "Reshape": _reshape})
"""Rules by standard operator."""
