"""Which channels can be multiplied by a factor of their own without changing what the model computes.

``f(s x) = s f(x)`` for every ``s > 0`` is what an activation needs (positive homogeneity): Relu, LeakyRelu and PRelu
have it, and so has everything that moves, averages or compares elements of one channel. ``Clip(x, 0, b)`` has it
together with its bound: ``Clip(s x, 0, s b) = s Clip(x, 0, b)``. A residual Add (Sub, Max, Min) has it where both
sides take the same factor, and its constants too. A layer unties: it divides the factor of what it reads out of its
columns, and multiplies that of what it gives into its rows and its bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns
from qcompiler.passes.equalize._labels import MOVERS, Labels, Names, move, vector
from qcompiler.passes.equalize._layers import LAYERS, channels, why_not_layer

__all__ = ["Bound", "Scaling", "analyse"]

_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "Abs", "Neg")
_JOINING = ("Add", "Sub", "Sum", "Max", "Min")


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """An activation with an upper bound that scales with its channels.

    Attributes:
        node: ``Clip(x, 0, b)`` or ``Min(x, bounds)``.
        index: Which of its inputs is ``x``.
        values: The bound of each channel, shape ``(channels,)``.
        names: Labels of the channels.
    """

    node: ir.Node
    index: int
    values: NDArray[np.float64]
    names: Names


@dataclass(slots=True, eq=False)
class Scaling:
    """What was found about one graph.

    Attributes:
        labels: Labels of every tensor, ties and what is frozen.
        makers: Layers with the labels of their output channels.
        readers: Layers with the labels of their input channels.
        bounds: Activations with an upper bound.
        added: Constants that take the factor of what they are added to: node, input, labels of the result.
        refused: Layers whose constants cannot be scaled, with the reason.
    """

    labels: Labels = field(default_factory=Labels)
    makers: dict[ir.Node, Names] = field(default_factory=dict)
    readers: dict[ir.Node, Names] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)
    added: list[tuple[ir.Node, int, Names]] = field(default_factory=list)
    refused: dict[ir.Node, str] = field(default_factory=dict)


def analyse(graph: ir.Graph, *, residual: bool, why_not_bound: Callable[[ir.Node], str]) -> Scaling:
    """Follow channels through a graph.

    Args:
        graph: The graph, in order.
        residual: Whether sums of two branches tie them; else they end there.
        why_not_bound: Why bounds per channel would not do at a node; empty where it would.
    """
    found = Scaling()
    for node in graph:
        if patterns.has_type(node, "Shape", "Size"):
            continue
        reason = _visit(node, found, residual, why_not_bound)
        if reason:
            _leave(node, found.labels, reason)
        for value in node.outputs:
            if any(use.node.graph is not graph for use in value.uses()):
                found.labels.freeze(found.labels.of(value), "a body of control flow reads its result")
            if value.is_graph_output():
                found.labels.freeze(found.labels.of(value), "its result is an output of the model")
    return found


def _leave(node: ir.Node, labels: Labels, reason: str) -> None:
    """Freeze what a node reads; what it gives has no labels."""
    for value in node.inputs:
        labels.freeze(labels.of(value), reason)
    for value in node.outputs:
        labels.put(value, np.zeros((1,) * (patterns.rank(value) or 0), np.intp))


def _visit(node: ir.Node, found: Scaling, residual: bool, why_not_bound: Callable[[ir.Node], str]) -> str:
    """Give the results of a node their labels; returns why factors do not pass it, else nothing."""
    if patterns.has_type(node, *LAYERS, "MatMul"):
        return _layer(node, found)
    if patterns.has_type(node, *_HOMOGENEOUS):
        found.labels.put(node.outputs[0], found.labels.of(node.inputs[0]))
        return ""
    if patterns.has_type(node, "Clip"):
        return _clip(node, found, why_not_bound)
    if patterns.has_type(node, *_JOINING):
        return _join(node, found, residual, why_not_bound)
    if patterns.has_type(node, "Mul", "Div"):
        return _multiply(node, found)
    if patterns.has_type(node, *MOVERS):
        moved = move(node, found.labels)
        if isinstance(moved, str):
            return f"{node.name} ({node.op_type}) behind it: {moved}"
        for value, names in zip(node.outputs, moved, strict=False):
            found.labels.put(value, names)
        return ""
    return f"{node.name} ({node.op_type}) behind it does not let a factor pass"


def _layer(node: ir.Node, found: Scaling) -> str:
    reason, data = why_not_layer(node), node.inputs[0]
    rank = patterns.rank(node.outputs[0])
    if reason or data is None or rank is None:
        found.refused[node] = reason
        return f"{node.name} behind it: {reason or 'its rank is not known'}"
    shape = channels(node)
    names = vector(found.labels.of(data), shape.axis, shape.inputs)
    if names is None:
        found.labels.freeze(found.labels.of(data), f"{node.name} behind it mixes channels otherwise")
        names = np.zeros(shape.inputs, np.intp)
    found.readers[node] = names
    made = found.labels.fresh(shape.outputs)
    found.makers[node] = made
    axis = shape.axis % rank
    found.labels.put(node.outputs[0], made.reshape([-1 if i == axis else 1 for i in range(rank)]))
    return ""


def _clip(node: ir.Node, found: Scaling, why_not_bound: Callable[[ir.Node], str]) -> str:
    low, high = ([*node.inputs[1:], None, None][i] for i in range(2))
    lower = None if low is None else constants.scalar(low)
    upper = math.inf if high is None else constants.scalar(high)
    if lower != 0 or upper is None or not upper > 0:
        return f"{node.name} behind it clips at other bounds than 0 and a positive number"
    names = found.labels.of(node.inputs[0])
    if upper == math.inf:
        found.labels.put(node.outputs[0], names)
        return ""
    return _bounded(node, 0, float(upper), names, found, why_not_bound)


def _bounded(
    node: ir.Node,
    index: int,
    bound: float | NDArray[np.float64],
    names: Names,
    found: Scaling,
    why_not_bound: Callable[[ir.Node], str],
) -> str:
    shape = patterns.static_shape(node.inputs[index])
    size = None if shape is None or len(shape) < 2 else shape[1]
    along = None if size is None else vector(names, 1, size)
    if size is None or along is None:
        return f"{node.name} behind it has no bound per channel of its own"
    if reason := why_not_bound(node):
        return reason
    found.bounds.append(Bound(node, index, np.broadcast_to(np.asarray(bound, np.float64), (size,)), along))
    found.labels.put(node.outputs[0], names)
    return ""


def _join(node: ir.Node, found: Scaling, residual: bool, why_not_bound: Callable[[ir.Node], str]) -> str:
    computed = [i for i, value in enumerate(node.inputs) if value is not None and not constants.is_constant(value)]
    fixed = [i for i, value in enumerate(node.inputs) if value is not None and constants.is_constant(value)]
    if not computed:
        return f"{node.name} behind it is constant"
    if node.op_type == "Min" and fixed:
        return _minimum(node, computed, fixed, found, why_not_bound)
    reason = f"{node.name} ({node.op_type}) behind it adds what no factor reaches"
    if len(computed) > 1 and not residual:
        return f"{node.name} ({node.op_type}) behind it joins branches"
    names = found.labels.of(node.inputs[computed[0]])
    for index in computed[1:]:
        other = found.labels.of(node.inputs[index])
        found.labels.tie(names, other, reason)
        names = other if other.size > names.size else names
    rank = patterns.rank(node.outputs[0])
    if rank is None or names.ndim > rank:
        return reason
    names = names.reshape((1,) * (rank - names.ndim) + names.shape)
    found.labels.put(node.outputs[0], names)
    found.added += [(node, index, names) for index in fixed]
    return ""


def _minimum(
    node: ir.Node,
    computed: list[int],
    fixed: list[int],
    found: Scaling,
    why_not_bound: Callable[[ir.Node], str],
) -> str:
    """Min with a bound per channel, of which the constant is this node's own."""
    value, other = node.inputs[computed[0]], node.inputs[fixed[0]]
    content, shape = constants.array(other), patterns.static_shape(value)
    refused = f"{node.name} (Min) behind it has no bound per channel of its own"
    if content is None or other is None or shape is None or len(node.inputs) != 2 or len(shape) < 2:
        return refused
    if content.shape != (1, shape[1], *[1] * (len(shape) - 2)) or len(list(other.uses())) != 1:
        return refused
    bound = content.reshape(-1).astype(np.float64)
    return _bounded(node, computed[0], bound, found.labels.of(value), found, why_not_bound)


def _multiply(node: ir.Node, found: Scaling) -> str:
    """A product takes the factor of one operand; the other (a constant, or a gate) must have none."""
    first, second = node.inputs
    labels = found.labels
    carrier, other = (first, second)
    if node.op_type == "Mul" and not labels.free(labels.of(first)).any():
        carrier, other = second, first
    reason = f"{node.name} ({node.op_type}) behind it multiplies by it"
    if not constants.is_constant(other):
        labels.freeze(labels.of(other), reason)
    names, rank = labels.of(carrier), patterns.rank(node.outputs[0])
    if rank is None or names.ndim > rank:
        return reason
    labels.put(node.outputs[0], names.reshape((1,) * (rank - names.ndim) + names.shape))
    return ""
