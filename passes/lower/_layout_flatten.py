"""Channels last up to a flattened image: nothing changes where only channels are left, else weights are reordered."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array
from qcompiler.ir.edit import Edit
from qcompiler.ir.patterns import static_shape
from qcompiler.passes.lower._layout_turns import Rule, StaysFirst, Turn, image_rank
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.packing import pack, unpack

__all__ = ["RULES"]

_WEIGHT: Final = 1


def _flatten(node: ir.Node) -> Turn:
    """Flatten, Reshape to one row per sample.

    The order of a row changes with the layout, unless there is one channel or one position. Where all that reads the
    rows are products with constant weights, the weights are reordered along.
    """
    sizes = _sizes(node)
    apply = functools.partial(_as_rows, node, math.prod(sizes))
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
    """Sizes of the channels and of the spatial axes of what becomes rows.

    Raises:
        StaysFirst: They are not known, or the result is not one row per sample.
    """
    image_rank(node.inputs[0])
    sizes, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    known = () if sizes is None else tuple(size for size in sizes[1:] if size is not None)
    if sizes is None or len(known) < len(sizes) - 1 or not math.prod(known):
        raise StaysFirst("the sizes of its image are not known")
    if (
        result is None
        or len(result) != 2
        or result[1] != math.prod(known)
        or node.attributes.get_int("allowzero", 0) != 0
    ):
        raise StaysFirst("its result is not one row per sample")
    return known


def _multiplies(node: ir.Node, index: int) -> bool:
    return (
        node.domain == DOMAIN
        and node.op_type.startswith("QGemm")
        and index == 0
        and array(node.inputs[_WEIGHT]) is not None
    )


def _as_rows(node: ir.Node, length: int, edit: Edit) -> None:
    """A Reshape may have said its sizes by those of the image, which are others now."""
    if node.op_type == "Reshape":
        old = node.inputs[1]
        edit.set_input(node, 1, edit.constant(f"{node.name}_rows", np.array([0, length], np.int64)))
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


RULES: Final[Mapping[str, Rule]] = MappingProxyType({"Flatten": _flatten, "Reshape": _flatten})
"""Rules by standard operator."""
