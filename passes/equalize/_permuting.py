"""Which channels can change places: followed from the layers that make them to those that read them.

What acts on each element for itself lets any order pass; its constants are put into the new order as well. A sum over
channels does not mind their order (softmax, normalizations, a product over both their axes). Where places do matter
(heads of an attention, groups of a convolution, a slice), channels may change places within a part only: such parts are
marked, and the tensors in which a channel occurs say the rest (``_orders``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.ir import constants, originals, patterns
from qcompiler.passes.equalize._labels import MOVERS, Labels, Names, move, vector
from qcompiler.passes.equalize._layers import LAYERS, channels, why_not_layer

__all__ = ["Permuting", "analyse"]

_UNARY = (
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Erf", "Tanh", "Sigmoid", "HardSigmoid", "HardSwish", "Mish",
    "Softplus", "Softsign", "ThresholdedRelu", "Exp", "Log", "Neg", "Abs", "Sqrt", "Reciprocal", "Sin", "Cos", "Atan",
    "Floor", "Ceil", "Round", "Sign", "Cast", "Softmax", "LogSoftmax",
)  # fmt: skip
_ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean", "Where", "PRelu", "Clip",
)  # fmt: skip
_NORMS = ("LayerNormalization", "RMSNormalization")
_REDUCING = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum")


@dataclass(slots=True, eq=False)
class Permuting:
    """What was found about one graph.

    Attributes:
        labels: Labels of every tensor, ties and what is frozen.
        makers: Layers with the labels of their output channels.
        readers: Layers with the labels of their input channels.
        constants: Other constants with channels: node, input, labels in the rank of the constant.
        marks: Labels, and beside each the part that it must not leave.
        refused: Layers whose constants cannot be changed, with the reason.
    """

    labels: Labels = field(default_factory=Labels)
    makers: dict[ir.Node, Names] = field(default_factory=dict)
    readers: dict[ir.Node, Names] = field(default_factory=dict)
    constants: list[tuple[ir.Node, int, Names]] = field(default_factory=list)
    marks: list[tuple[Names, Names]] = field(default_factory=list)
    refused: dict[ir.Node, str] = field(default_factory=dict)


def analyse(graph: ir.Graph) -> Permuting:
    """Follow channels through a graph, in order."""
    found = Permuting()
    labels = found.labels
    for node in graph:
        if patterns.has_type(node, "Shape", "Size"):
            continue
        if reason := _visit(node, found):
            for value in node.inputs:
                labels.freeze(labels.of(value), f"{node.name} ({node.op_type}) behind it {reason}")
            for value in node.outputs:
                labels.put(value, np.zeros((1,) * (patterns.rank(value) or 0), np.intp))
        for value in node.outputs:
            if any(use.node.graph is not graph for use in value.uses()):
                labels.freeze(labels.of(value), "a body of control flow reads its result")
            if value.is_graph_output():
                labels.freeze(labels.of(value), "its result is an output of the model")
    return found


def _visit(node: ir.Node, found: Permuting) -> str:
    """Give the results of a node their labels; returns why channels cannot change places behind it, else nothing."""
    if not patterns.has_type(node, *_RULES, *MOVERS):
        return "does not let channels pass"
    if patterns.has_type(node, *_REDUCING) and _all_reduced(node, found.labels):
        return ""
    return _RULES.get(node.op_type, _moved)(node, found)


def _same(node: ir.Node, found: Permuting) -> str:
    found.labels.put(node.outputs[0], found.labels.of(node.inputs[0]))
    return ""


def _moved(node: ir.Node, found: Permuting) -> str:
    moved = move(node, found.labels)
    if isinstance(moved, str):
        return f"does not let channels pass: {moved}"
    for value, names in zip(node.outputs, moved, strict=False):
        found.labels.put(value, names)
    return ""


def _multiplied(node: ir.Node, found: Permuting) -> str:
    return _layer(node, found) if constants.is_constant(node.inputs[1]) else _product(node, found)


def _layer(node: ir.Node, found: Permuting) -> str:
    reason, data = why_not_layer(node), node.inputs[0]
    rank = patterns.rank(node.outputs[0])
    if reason or data is None or rank is None:
        found.refused[node] = reason or "its rank is not known"
        return f"cannot be changed: {found.refused[node]}"
    shape, labels = channels(node), found.labels
    groups = patterns.integer(node, "group", 1) if patterns.has_type(node, "Conv", "ConvTranspose") else 1
    names = vector(labels.of(data), shape.axis, shape.inputs)
    if names is None:
        labels.freeze(labels.of(data), f"{node.name} behind it mixes channels otherwise")
        names = np.zeros(shape.inputs, np.intp)
    axis = shape.axis % rank
    if groups == shape.inputs == shape.outputs and groups > 1:  # depthwise: one channel in, the same out
        labels.put(node.outputs[0], names.reshape([-1 if i == axis else 1 for i in range(rank)]))
        found.constants.append((node, 1, names.reshape(-1, *[1] * (rank - 1))))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            found.constants.append((node, 2, names))
        return ""
    made = labels.fresh(shape.outputs)
    found.readers[node], found.makers[node] = names, made
    if groups > 1:
        for each in (names, made):
            found.marks.append((each, np.repeat(np.arange(groups), each.size // groups)))
    labels.put(node.outputs[0], made.reshape([-1 if i == axis else 1 for i in range(rank)]))
    return ""


def _aligned(array: Names, rank: int) -> Names:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _varied(names: Names) -> list[int]:
    return [axis for axis, size in enumerate(names.shape) if size > 1]


def _elementwise(node: ir.Node, found: Permuting) -> str:
    rank = patterns.rank(node.outputs[0])
    values = [(index, value) for index, value in enumerate(node.inputs) if value is not None]
    if rank is None or any((patterns.rank(value) or 0) > rank for _, value in values):
        return "has a result of unknown rank"
    arrays = {index: _aligned(found.labels.of(value), rank) for index, value in values}
    main = next((names for names in arrays.values() if names.size > 1), None)
    if main is None:
        found.labels.put(node.outputs[0], np.zeros((1,) * rank, np.intp))
        return ""
    for index, value in values:
        reason = _beside(node, index, value, arrays[index], main, found)
        if reason:
            return reason
    found.labels.put(node.outputs[0], main)
    return ""


def _beside(node: ir.Node, index: int, value: ir.Value, names: Names, main: Names, found: Permuting) -> str:
    """What an operand asks of the channels of the others; returns why they cannot be what it asks."""
    if names.size > 1:
        if names.shape != main.shape:
            return "combines channels of different axes"
        if names is not main:
            found.labels.tie(
                main, names, f"{node.name} ({node.op_type}) behind it combines it with what has its own order"
            )
        return ""
    shape = patterns.static_shape(value)
    if shape is None:
        return "combines it with a tensor of unknown shape"
    sizes = (1,) * (main.ndim - len(shape)) + shape
    wide = [axis for axis in _varied(main) if sizes[axis] != 1]
    if not wide:
        return ""
    if not constants.is_constant(value):
        return "combines it with what has an order of its own"
    if originals.is_kept(value):
        return "has a constant that was fitted to its codes already"
    if wide != _varied(main):
        other = [1 if axis in wide else size for axis, size in enumerate(main.shape)]
        parts = np.arange(main.size // int(np.prod(other))).reshape(
            [main.shape[a] if a in wide else 1 for a in range(main.ndim)]
        )
        found.marks.append((main, np.broadcast_to(parts, main.shape)))
    else:
        found.constants.append((node, index, main.reshape(main.shape[main.ndim - len(shape) :])))
    return ""


def _norm(node: ir.Node, found: Permuting) -> str:
    names = found.labels.of(node.inputs[0])
    first = patterns.integer(node, "axis", -1) % max(names.ndim, 1)
    varied = _varied(names)
    if any(value.is_graph_output() or list(value.uses()) for value in node.outputs[1:]):
        return "gives its statistics too"
    if varied and varied[-1] >= first:
        if varied[0] < first:
            return "normalizes part of the channels"
        tail = names.reshape(names.shape[first:])
        for index in range(1, len(node.inputs)):
            value = node.inputs[index]
            if value is None:
                continue
            if not constants.is_constant(value) or originals.is_kept(value) or patterns.rank(value) != tail.ndim:
                return "has factors that cannot be changed"
            found.constants.append((node, index, tail))
    found.labels.put(node.outputs[0], names)
    return ""


def _gather(node: ir.Node, found: Permuting) -> str:
    table, indices = node.inputs[:2]
    rank, axis = patterns.rank(node.outputs[0]), patterns.integer(node, "axis", 0)
    shape = patterns.static_shape(table)
    if table is None or rank is None or shape is None or not shape:
        return "has a table of unknown shape"
    axis %= len(shape)
    if constants.is_constant(table):
        if axis != 0 or len(shape) != 2 or table.dtype != ir.DataType.FLOAT:
            found.labels.put(node.outputs[0], np.zeros((1,) * rank, np.intp))
            return ""
        made = found.labels.fresh(int(shape[1] or 0))
        if len(list(table.uses())) > 1 or table.is_graph_output() or originals.is_kept(table):
            found.labels.freeze(made, f"the table of {node.name} is shared with other nodes, or fitted already")
        else:
            found.constants.append((node, 0, made.reshape(1, -1)))
        found.labels.put(node.outputs[0], made.reshape((1,) * (rank - 1) + (-1,)))
        return ""
    names, count = found.labels.of(table), patterns.rank(indices)
    if names.shape[axis] > 1 or count is None:
        return "picks channels"
    found.labels.put(node.outputs[0], names.reshape(names.shape[:axis] + (1,) * count + names.shape[axis + 1 :]))
    return ""


def _repeated(node: ir.Node, found: Permuting) -> str:
    labels = found.labels
    names = labels.of(node.inputs[0])
    before, after = patterns.static_shape(node.inputs[0]), patterns.static_shape(node.outputs[0])
    if names.size == 1:
        labels.put(node.outputs[0], np.zeros((1,) * (patterns.rank(node.outputs[0]) or 0), np.intp))
        return ""
    if before is None or after is None or len(after) < len(before):
        return "repeats it to an unknown shape"
    wide = _aligned(names, len(after))
    if any(after[axis] != wide.shape[axis] for axis in _varied(wide)):
        return "repeats channels"
    labels.put(node.outputs[0], wide)
    return ""


def _all_reduced(node: ir.Node, labels: Labels) -> bool:
    """Whether the node reduces all axes along which there are channels: then their order is no matter."""
    names, rank = labels.of(node.inputs[0]), patterns.rank(node.outputs[0])
    listed = constants.array(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    stated = patterns.integers(node, "axes") if listed is None else tuple(int(axis) for axis in listed)
    if not stated or rank is None or names.size == 1 or names.ndim == 0:
        return False
    if not set(_varied(names)) <= {axis % names.ndim for axis in stated}:
        return False
    labels.put(node.outputs[0], np.zeros((1,) * rank, np.intp))
    return True


def _product(node: ir.Node, found: Permuting) -> str:
    """A product of two activations: what is summed over takes one order, what is not keeps its own."""
    rank, labels = patterns.rank(node.outputs[0]), found.labels
    first, second = (labels.of(value) for value in node.inputs[:2])
    if rank is None or rank < 2 or min(first.ndim, second.ndim) < 2:
        return "is a product of unknown rank"
    a, b = _aligned(first, rank), _aligned(second, rank)
    reason = f"{node.name} (MatMul) behind it sums over it together with what has an order of its own"
    rows, columns = a.shape[-2] > 1, b.shape[-1] > 1
    summed = a.shape[-1] > 1, b.shape[-2] > 1
    if (rows and (columns or summed[0])) or (columns and summed[1]):
        return "crosses channels"
    for names in (a, b):
        batch = names.shape[:-2]
        if any(size > 1 for size in batch):  # heads: channels stay in theirs
            parts = np.arange(int(np.prod(batch))).reshape(*batch, 1, 1)
            found.marks.append((names, np.broadcast_to(parts, names.shape)))
    if any(summed):
        labels.tie(a, np.swapaxes(b, -1, -2), reason) if all(summed) else labels.freeze(a if summed[0] else b, reason)
    result = a if rows else b if columns else np.zeros((1,) * rank, np.intp)
    labels.put(node.outputs[0], result)
    return ""


_RULES: Final[dict[str, Callable[[ir.Node, Permuting], str]]] = {
    **dict.fromkeys(_UNARY, _same),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(LAYERS, _layer),
    **dict.fromkeys(("Expand", "Tile"), _repeated),
    "MatMul": _multiplied,
    "Gather": _gather,
}
"""What each operator does to labels; it returns why it does not let them pass, else nothing."""
