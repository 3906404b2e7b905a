"""Streams: groups of tensors that can all be multiplied by one positive factor without changing what the model gives.

``f(s x) = s f(x)`` holds for what moves, compares, averages or adds tensors: such a node ties what it reads to what it
writes, and constants that are added or compared are multiplied as well. A layer with constant weights unties: its
weights take the factor of its output over that of its input, its bias that of its output. Everything else, and the
results of the graph, must be left as they are: a stream that touches them is not free. An input of the graph can be
multiplied by a node of its own, in real numbers, before it is quantized.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns
from qcompiler.ir.dataflow import ties
from qcompiler.ir.edit import Edit
from qcompiler.ir.statistics import set_statistics, statistics
from qcompiler.ir.transformed import transformed
from qcompiler.passes.equalize._layers import LAYERS, why_not_layer
from qcompiler.passes.normalize._rewrite import own_constant, tensor_shape
from qcompiler.quant.factors import keep_float, set_factor

__all__ = ["MOVERS", "Stream", "multiply", "refused", "streams"]

MOVERS: Final = (
    "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "GlobalMaxPool", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Nodes whose results hold nothing but elements of their first input."""
_PASSING: Final = (
    *MOVERS, "Relu", "LeakyRelu", "PRelu", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceMax",
    "ReduceMin",
)  # fmt: skip
"""Nodes whose first input is tied to their result; other inputs do not count."""
_JOINING: Final = ("Add", "Sub", "Sum", "Max", "Min", "Concat", "Clip", "Pad")
"""Nodes all of whose real inputs are tied to their result."""


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Tensors that share a factor.

    Attributes:
        values: Tensors that are computed or fed, in graph order; none of them is constant.
    """

    values: tuple[ir.Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Border:
    """Something that cannot be multiplied, or bears no multiple: what is tied to it is not free.

    Attributes:
        reason: What it is.
    """

    reason: str


_BEFORE_CODES: Final = "it multiplies an input of the model before that becomes codes"


def streams(graph: ir.Graph) -> list[Stream]:
    """The free streams of a graph, in graph order."""
    groups = [group for group in _groups(graph) if not any(isinstance(item, _Border) for item in group)]
    return [Stream(tuple(item for item in group if isinstance(item, ir.Value))) for group in groups]


def refused(graph: ir.Graph) -> Iterator[tuple[ir.Node, str]]:
    """Every layer whose result cannot be multiplied, and why."""
    for group in _groups(graph):
        border = next((item for item in group if isinstance(item, _Border)), None)
        for item in group if border is not None else ():
            maker = item.producer() if isinstance(item, ir.Value) else None
            if border is not None and maker is not None and is_layer(maker):
                yield maker, border.reason


def _groups(graph: ir.Graph) -> list[list[object]]:
    """Tensors that are tied to each other, and borders that they touch."""
    output = "it is an output of the model"
    pairs: list[tuple[object, object]] = [(_Border(output), value) for value in graph.outputs]
    for value in graph.inputs:
        free = _is_real(value) and not value.is_initializer()
        pairs.append((value if free else _Border(f"'{value.name}' is not fed with real numbers"), value))
    for node in graph:
        pairs += _ties(node)
    return ties(pairs)


def _ties(node: ir.Node) -> Iterator[tuple[object, object]]:
    """What a node ties, to each other or to a border."""
    results = [value for value in node.outputs if _is_real(value)]
    for value in results:
        yield value, value
        if any(use.node.graph is not node.graph for use in value.uses()):
            yield _Border("a body of control flow reads it"), value
    if is_layer(node):
        return
    if patterns.has_type(node, *_PASSING, *_JOINING) or _multiplies_by_constant(node):
        tied = [value for value in _tied_inputs(node) if not constants.is_constant(value)]
        for value in tied[1:]:
            yield tied[0], value
        for value in results:
            yield tied[0] if tied else _Border(f"{node.name} ({node.op_type}) is constant"), value
        return
    border = _Border(f"{node.name} ({node.op_type}) bears no factor")
    for value in (*results, *(value for value in node.inputs if value is not None and _is_real(value))):
        if not constants.is_constant(value):
            yield border, value


def is_layer(node: ir.Node) -> bool:
    """Whether the node has weights of its own that can take a factor."""
    if patterns.has_type(node, *LAYERS):
        return not why_not_layer(node)
    weight = node.inputs[1] if patterns.has_type(node, "MatMul") else None
    return weight is not None and constants.is_constant(weight) and _is_real(weight)


def _tied_inputs(node: ir.Node) -> list[ir.Value]:
    """Inputs that must be multiplied with the result, constants included."""
    inputs = list(node.inputs) if patterns.has_type(node, *_JOINING, "Mul") else list(node.inputs[:1])
    return [value for value in inputs if value is not None and _is_real(value)]


def _multiplies_by_constant(node: ir.Node) -> bool:
    if not patterns.has_type(node, "Mul", "Div"):
        return False
    computed = [index for index, value in enumerate(node.inputs) if not constants.is_constant(value)]
    return computed == [0] or (computed == [1] and node.op_type == "Mul")


def _is_real(value: ir.Value) -> bool:
    return value.dtype in (None, ir.DataType.FLOAT)


def multiply(graph: ir.Graph, factors: dict[ir.Value, float], edit: Edit, suffix: str) -> None:
    """Multiply tensors of whole streams, by changing the constants around them; renames them, as their content changes.

    Args:
        graph: The graph.
        factors: The factor of every tensor of the streams that change.
        edit: The mutation interface.
        suffix: Ending of the new names.
    """
    inner: dict[ir.Value, float] = {}
    for value, factor in factors.items():
        name = f"{value.name}{suffix}"
        changed = _multiply_input(value, factor, edit) if value.is_graph_input() else value
        edit.rename(changed, name)
        if (known := statistics(changed)) is not None:
            set_statistics(changed, known[0] * factor, known[1] * factor**2)
        set_factor(changed, factor)
        inner[changed] = factor
    for node in list(graph):
        _scale_constants(node, inner, edit)


def _scale_constants(node: ir.Node, factors: dict[ir.Value, float], edit: Edit) -> None:
    """Multiply the constants of a node as the factors of what it reads and writes ask for."""
    after = factors.get(node.outputs[0], 1.0) if node.outputs else 1.0
    if is_layer(node):
        before = factors.get(node.inputs[0], 1.0) if node.inputs[0] is not None else 1.0
        _scale(node, 1, after / before, edit)
        _scale(node, 2, after, edit)
    elif patterns.has_type(node, *_JOINING):
        for index, value in enumerate(node.inputs):
            if value is not None and _is_real(value) and constants.is_constant(value):
                _scale(node, index, after, edit)


def _multiply_input(value: ir.Value, factor: float, edit: Edit) -> ir.Value:
    """Let a Mul in real numbers stand between an input of the graph and its readers; returns what they read now."""
    readers = [(use.node, use.idx) for use in value.uses()]
    first = next(node for node in edit.model.graph if node in {reader for reader, _ in readers})
    constant = edit.constant(f"{value.name}_factor", np.array(factor, np.float32))
    node = edit.insert("Mul", [value, constant], before=first, name=f"{value.name}_multiplied", output_name=value.name)
    node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    keep_float(node, _BEFORE_CODES)
    for reader, index in readers:
        edit.set_input(reader, index, node.outputs[0])
    return node.outputs[0]


def _scale(node: ir.Node, index: int, factor: float, edit: Edit) -> None:
    if factor == 1.0 or index >= len(node.inputs) or node.inputs[index] is None:
        return
    constant = own_constant(edit, node, index)
    source = constant.const_value
    if source is None:
        raise ValueError(f"input {index} of {node.name} is not a constant")

    def times(data: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(data.astype(np.float64) * factor)

    shape = tensor_shape(source)
    if shape:
        edit.set_constant(constant, transformed(edit, source, times, shape))
    else:  # transformed() makes vectors of scalars
        edit.set_constant(constant, times(source.numpy()).astype(source.dtype.numpy()))
