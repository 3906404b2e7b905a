"""Residual streams: tensors that hold the same channels, from what writes into them to the norms that read them.

A stream can be turned by an orthogonal matrix where everything that writes its channels is linear in them (matrix
products, convolutions, looked-up tables, constants that are added or joined) and everything that reads them is a norm
over all of them, read in turn by matrix products alone, or such a product itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from qcompiler.ir import constants, patterns
from qcompiler.passes.equalize._producers import Linear, linear, why_not_constant
from qcompiler.quant.operators import looks_up_rows

__all__ = ["NORMS", "Residual", "follow"]

NORMS: Final = ("LayerNormalization", "RMSNormalization")
_MOVERS: Final = ("Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(slots=True, eq=False)
class Residual:
    """A stream.

    Attributes:
        size: Channels.
        axes: Its tensors, and the axis on which each has the channels.
        constants: Constants that are part of it: the node and input that reads each, and the axis.
        tables: Gather nodes whose table has the channels on its last axis.
        writers: Matrix products that write it.
        convolutions: Convolutions that write it.
        norms: Norms that read it, and the products behind each.
        readers: Products that read it without a norm.
    """

    size: int
    axes: dict[ir.Value, int] = field(default_factory=dict)
    constants: list[tuple[ir.Node, int, int]] = field(default_factory=list)
    tables: list[ir.Node] = field(default_factory=list)
    writers: list[Linear] = field(default_factory=list)
    convolutions: list[ir.Node] = field(default_factory=list)
    norms: dict[ir.Node, list[Linear]] = field(default_factory=dict)
    readers: list[Linear] = field(default_factory=list)

    @property
    def centred(self) -> bool:
        """Whether a norm takes the mean out."""
        return any(node.op_type == "LayerNormalization" for node in self.norms)


class _Stopped(Exception):  # noqa: N818 - it is an answer, not an error
    """Why a stream cannot be turned."""


def follow(norm: ir.Node) -> Residual | str:
    """The stream that a norm reads, or why it cannot be turned."""
    value = norm.inputs[0]
    shape = patterns.static_shape(value)
    gamma = patterns.static_shape(norm.inputs[1]) if len(norm.inputs) > 1 else None
    if value is None or shape is None or gamma is None or len(gamma) != 1 or gamma[0] in (None, 1):
        return "the number of its channels is not known"
    found = Residual(int(gamma[0] or 0))
    pending = [(value, len(shape) - 1)]
    try:
        while pending:
            value, axis = pending.pop()
            if found.axes.get(value) == axis:
                continue  # reached from two sides
            if found.axes.setdefault(value, axis) != axis:
                return f"'{value.name}' would have the channels on two axes"
            seen = [*_made(found, value, axis), *_read(found, value, axis)]
            pending += [item for item in seen if found.axes.get(item[0]) != item[1]]
    except _Stopped as stop:
        return str(stop)
    return found


def _made(found: Residual, value: ir.Value, axis: int) -> list[tuple[ir.Value, int]]:
    """Register what makes a tensor; the tensors of the stream that it is made from."""
    node, rank = value.producer(), patterns.rank(value)
    if node is None or node.domain or rank is None:
        raise _Stopped(f"'{value.name}' is an input of the model")
    last = axis == rank - 1
    if node.op_type in ("MatMul", "Gemm") and last and constants.is_constant(node.inputs[1]):
        layer = linear(node)
        if isinstance(layer, str):
            raise _Stopped(f"{node.name} ({node.op_type}) writes it: {layer}")
        found.writers.append(layer)
        return []
    if node.op_type == "Conv" and axis == 1:
        if reason := _why_not_convolution(node):
            raise _Stopped(f"{node.name} (Conv) writes it: {reason}")
        found.convolutions.append(node)
        return []
    if node.op_type == "Gather" and constants.is_constant(node.inputs[0]) and last:
        if reason := why_not_constant(node.inputs[0], "table"):
            raise _Stopped(f"{node.name} (Gather) writes it: {reason}")
        if not looks_up_rows(node) or patterns.rank(node.inputs[0]) != 2:
            raise _Stopped(f"{node.name} (Gather) does not look up rows of a matrix")
        found.tables.append(node)
        return []
    if node.op_type == "Add" or (node.op_type in _MOVERS and not node.domain):
        return _sources(found, node, axis)
    raise _Stopped(f"{node.name} ({node.op_type}) makes it, which is not linear in its channels")


def _why_not_convolution(node: ir.Node) -> str:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    reason = why_not_constant(node.inputs[1], "weight")
    return reason or (why_not_constant(bias, "bias") if bias is not None else "")


def _sources(found: Residual, node: ir.Node, axis: int) -> list[tuple[ir.Value, int]]:
    """Operands of an Add or a mover that belong to the stream; constants are registered."""
    many = node.op_type in ("Add", "Concat")
    operands = []
    for index, value in enumerate(node.inputs if many else node.inputs[:1]):
        if value is None:
            continue
        at = _axis_before(node, value, axis, found.size)
        if not constants.is_constant(value):
            operands.append((value, at))
        elif (node, index, at) not in found.constants:
            if value.dtype is not ir.DataType.FLOAT:
                raise _Stopped(f"a constant that {node.name} ({node.op_type}) reads is no float")
            found.constants.append((node, index, at))
    return operands


def _axis_before(node: ir.Node, value: ir.Value, axis: int, size: int) -> int:
    """The axis of an operand that becomes ``axis`` of the result."""
    rank, after = patterns.rank(value), patterns.rank(node.outputs[0])
    shape = patterns.static_shape(value)
    if rank is None or after is None or shape is None:
        raise _Stopped(f"the rank of '{value.name}' is not known")
    if node.op_type == "Transpose":
        order = patterns.integers(node, "perm") or tuple(reversed(range(rank)))
        return order[axis]
    if node.op_type in ("Add", "Expand"):
        at = axis - (after - rank)
    elif node.op_type in ("Concat", "Identity", "Slice"):
        at = axis
    else:
        at = _reshaped(patterns.static_shape(node.outputs[0]) or (), axis, shape)
    if at < 0 or shape[at] != size or _works_along(node, at, axis):
        raise _Stopped(f"{node.name} ({node.op_type}) mixes channels with positions")
    return at


def _works_along(node: ir.Node, before: int, after: int) -> bool:
    """Whether a mover takes elements along the axis of the channels, so that they are not all kept in order."""
    rank = patterns.rank(node.inputs[0]) or 0
    if node.op_type == "Concat":
        return patterns.integer(node, "axis", 0) % rank == before
    if node.op_type == "Gather":
        return patterns.integer(node, "axis", 0) % rank == before
    shapes = patterns.static_shape(node.inputs[0]), patterns.static_shape(node.outputs[0])
    return node.op_type == "Slice" and (shapes[0] or ())[before] != (shapes[1] or ())[after]


def _reshaped(one: tuple[int | None, ...], axis: int, two: tuple[int | None, ...]) -> int:
    """The axis of the other shape with the same size and as many elements behind it; -1 where there is none."""
    if not one or None in one[axis:]:
        return -1
    behind = math.prod(size or 0 for size in one[axis + 1 :])
    for at in range(len(two) - 1, -1, -1):
        rest = two[at + 1 :]
        if None not in rest and two[at] == one[axis] and math.prod(size or 0 for size in rest) == behind:
            return at
    return -1


def _read(found: Residual, value: ir.Value, axis: int) -> list[tuple[ir.Value, int]]:
    """Register what reads a tensor; the tensors of the stream that are made from it."""
    if value.is_graph_output():
        raise _Stopped(f"'{value.name}' is an output of the model")
    results = []
    rank = patterns.rank(value)
    for use in value.uses():
        node = use.node
        if node.domain or node.graph is not value.graph:
            raise _Stopped(f"{node.name} ({node.op_type}) reads it")
        last = rank is not None and axis == rank - 1
        if node.op_type in NORMS and use.idx == 0 and last:
            _norm(found, node)
        elif node.op_type in ("MatMul", "Gemm") and use.idx == 0 and last and constants.is_constant(node.inputs[1]):
            found.readers.append(_layer(node))
        elif node.op_type == "Add" or (node.op_type in _MOVERS and (use.idx == 0 or node.op_type == "Concat")):
            results.append((node.outputs[0], _axis_after(node, value, axis, found.size)))
        elif node.op_type != "Shape":
            raise _Stopped(f"{node.name} ({node.op_type}) reads it, and is no norm over its channels")
    return results


def _axis_after(node: ir.Node, value: ir.Value, axis: int, size: int) -> int:
    after = patterns.rank(node.outputs[0])
    shape, before = patterns.static_shape(node.outputs[0]), patterns.static_shape(value)
    if after is None or shape is None or before is None:
        raise _Stopped(f"the rank of '{node.outputs[0].name}' is not known")
    candidates = range(after) if node.op_type == "Transpose" else [
        at for at in range(after) if shape[at] in (size, None)
    ]
    for at in sorted(candidates, reverse=True):
        try:
            if _axis_before(node, value, at, size) == axis:
                return at
        except _Stopped:
            continue
    raise _Stopped(f"{node.name} ({node.op_type}) mixes channels with positions")


def _layer(node: ir.Node) -> Linear:
    layer = linear(node)
    if isinstance(layer, str):
        raise _Stopped(f"{node.name} ({node.op_type}) reads it: {layer}")
    return layer


def _norm(found: Residual, node: ir.Node) -> None:
    """A norm and the products behind it."""
    for value, what in zip(node.inputs[1:], ("factor", "shift"), strict=False):
        if value is not None and (reason := why_not_constant(value, what)):
            raise _Stopped(f"{node.name} ({node.op_type}) reads it: {reason}")
    rank = patterns.rank(node.inputs[0])
    if rank is None or patterns.integer(node, "axis", -1) not in (-1, rank - 1):
        raise _Stopped(f"{node.name} ({node.op_type}) normalises over several axes")
    products = list(_products(node))
    if not products:
        raise _Stopped(f"no linear layer reads what {node.name} gives")
    found.norms[node] = products


def _products(node: ir.Node) -> Iterator[Linear]:
    """The products that read what a norm gives, at every position or their mean."""
    pending = [node.outputs[0]]
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            raise _Stopped(f"what {node.name} gives is an output of the model")
        for use in value.uses():
            if use.node.op_type == "Add":
                raise _Stopped(f"what {node.name} gives is added to the stream: it is normalised behind the sum")
            if _keeps_channels(use.node, use.idx):
                pending.append(use.node.outputs[0])
            elif use.node.op_type in ("MatMul", "Gemm") and use.idx == 0 and constants.is_constant(use.node.inputs[1]):
                yield _layer(use.node)
            else:
                reader = f"{use.node.name} ({use.node.op_type})"
                raise _Stopped(f"{reader} reads what {node.name} gives, and is no linear layer")


def _keeps_channels(node: ir.Node, index: int) -> bool:
    """Whether a node picks or averages positions, and leaves channels on the last axis alone."""
    rank = patterns.rank(node.inputs[0])
    if index != 0 or rank is None or node.domain:
        return False
    if node.op_type == "Gather":
        return patterns.integer(node, "axis", 0) % rank != rank - 1
    if node.op_type != "ReduceMean":
        return False
    axes = constants.array(node.inputs[1]) if len(node.inputs) > 1 else patterns.integers(node, "axes")
    return axes is not None and all(int(axis) % rank != rank - 1 for axis in axes)
