"""Channels last through rearrangements: Reshape, Transpose, Reshape that shuffle channels or trade them for positions.

The first Reshape takes axes apart, the Transpose orders the pieces, the second Reshape joins them again. With channels
last the same pieces are taken, ordered and joined, only that those of the channels lie last. What lies between the
three nodes has neither layout, so they are turned together or not at all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import integers, static_shape
from qcompiler.ir.uses import only_use
from qcompiler.passes.lower._layout_axes import turned
from qcompiler.passes.lower._layout_turns import Rule, StaysFirst, Turn

__all__ = ["RULES", "Rearrangement", "rearrangement"]


@dataclass(frozen=True, slots=True, eq=False)
class Rearrangement:
    """Three nodes, and what they are with channels last.

    Attributes:
        nodes: Reshape, Transpose, Reshape.
        inner: Sizes of the pieces behind the batch, in their new order.
        order: Permutation of the Transpose.
        outer: Sizes of the result behind the batch.
    """

    nodes: tuple[ir.Node, ir.Node, ir.Node]
    inner: tuple[int, ...]
    order: tuple[int, ...]
    outer: tuple[int, ...]


def rearrangement(first: ir.Node) -> Rearrangement | None:
    """The rearrangement that begins with a node; ``None`` where none does."""
    second = _only_reader(first, "Reshape", "Transpose")
    third = _only_reader(second, "Transpose", "Reshape") if second is not None else None
    if second is None or third is None:
        return None
    shapes = [static_shape(value) for value in (first.inputs[0], first.outputs[0], third.outputs[0])]
    known = [shape[1:] for shape in shapes if shape is not None and None not in shape[1:]]
    order = integers(second, "perm")
    if len(known) < 3 or order is None or order[0] != 0 or min(len(known[0]), len(known[2])) < 2:
        return None
    before, inner, after = (tuple(int(size or 0) for size in shape) for shape in known)
    moved = [inner[axis - 1] for axis in order[1:]]
    taken, joined = _pieces(before, inner), _pieces(after, moved)
    if taken is None or joined is None:
        return None
    read = [axis for group in turned([[-1], *taken])[1:] for axis in group]
    written = [order[place + 1] - 1 for group in turned([[-1], *joined])[1:] for place in group]
    return Rearrangement(
        (first, second, third),
        tuple(inner[axis] for axis in read),
        (0, *(read.index(axis) + 1 for axis in written)),
        turned([0, *after])[1:],
    )


def _only_reader(node: ir.Node, op_type: str, reader: str) -> ir.Node | None:
    """The node that alone reads the result of a node, where both are of the given types."""
    if not has_type(node, op_type) or node.outputs[0].is_graph_output():
        return None
    use = only_use(node.outputs[0])
    return use[0] if use is not None and use[1] == 0 and has_type(use[0], reader) else None


def _pieces(whole: Sequence[int], parts: Sequence[int]) -> list[list[int]] | None:
    """Which consecutive parts each axis is made of; ``None`` where a part belongs to two axes, or a size is 0."""
    if 0 in (*whole, *parts) or math.prod(whole) != math.prod(parts):
        return None
    groups: list[list[int]] = []
    place = 0
    for size in whole:
        group, product = [], 1
        while place < len(parts) and (product < size or (parts[place] == 1 and len(groups) == len(whole) - 1)):
            group.append(place)
            product *= parts[place]
            place += 1
        if product != size:
            return None
        groups.append(group)
    return groups if place == len(parts) else None


def _reshape(node: ir.Node) -> Turn:
    """A Reshape at either end."""
    found = rearrangement(node)
    if found is not None:
        return Turn((0,), True, functools.partial(_taken_apart, node, found.inner), inside=True)
    middle = node.inputs[0].producer() if node.inputs[0] is not None else None
    found = rearrangement(_before(middle)) if middle is not None and has_type(middle, "Transpose") else None
    if found is None or found.nodes[2] is not node:
        raise StaysFirst("it is no part of a rearrangement of channels")
    return Turn((0,), True, functools.partial(_resized, node, found.outer))


def _transpose(node: ir.Node) -> Turn:
    """The Transpose between them."""
    found = rearrangement(_before(node))
    if found is None or found.nodes[1] is not node:
        raise StaysFirst("it is no part of a rearrangement of channels")
    return Turn((0,), True, functools.partial(_reordered, node, found), inside=True)


def _before(node: ir.Node) -> ir.Node:
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if producer is None:
        raise StaysFirst("nothing takes axes apart before it")
    return producer


def _resized(node: ir.Node, sizes: Sequence[int], edit: Edit) -> None:
    old = node.inputs[1]
    edit.set_input(node, 1, edit.constant(f"{node.name}_sizes", np.array([0, *sizes], np.int64)))
    edit.set_attribute(node, "allowzero", None)
    if old is not None:
        edit.remove_unused([old])


def _taken_apart(node: ir.Node, sizes: Sequence[int], edit: Edit) -> None:
    _resized(node, sizes, edit)
    _describe(node, sizes)


def _reordered(node: ir.Node, found: Rearrangement, edit: Edit) -> None:
    edit.set_attribute(node, "perm", found.order)
    _describe(node, [found.inner[axis - 1] for axis in found.order[1:]])


def _describe(node: ir.Node, sizes: Sequence[int]) -> None:
    """The shape of what lies between."""
    value = node.outputs[0]
    if value.shape is not None and len(value.shape) == len(sizes) + 1:
        value.shape = ir.Shape([value.shape[0], *sizes])


RULES: Final[Mapping[str, Rule]] = MappingProxyType({"Reshape": _reshape, "Transpose": _transpose})
"""Rules by standard operator."""
