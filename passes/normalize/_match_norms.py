"""LayerNorm and RMSNorm written in elementary operators.

Both divide by ``sqrt(mean(v v) + epsilon)``. Where ``v`` is the operand itself it is RMSNorm, where ``v`` is the
operand less its mean it is LayerNorm; a constant factor and a constant shift behind belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from qcompiler.ir import constants, patterns

__all__ = ["Normalisation", "normalisation"]

_LARGEST_EPSILON = 0.01


@dataclass(frozen=True, slots=True)
class Normalisation:
    """A normalisation in parts.

    Attributes:
        kind: ``layer-norm`` or ``rms-norm``.
        nodes: Its nodes, in no order.
        source: What is normalised.
        result: What comes out, factor and shift included.
        axes: The axes, counted from the end.
        epsilon: What is added to the mean square.
        factor: The constant factor behind; ``None`` without one.
        shift: The constant added at the end; ``None`` without one.
    """

    kind: str
    nodes: list[ir.Node]
    source: ir.Value
    result: ir.Value
    axes: tuple[int, ...]
    epsilon: float
    factor: ir.Value | None
    shift: ir.Value | None


@dataclass(frozen=True, slots=True)
class _Centred:
    """A value less its mean: the nodes that do it, and over which axes."""

    source: ir.Value
    nodes: tuple[ir.Node, ...]
    axes: tuple[int, ...]


def normalisation(anchor: ir.Node) -> Normalisation | None:
    """The normalisation around a Sqrt (or a Pow with exponent ±1/2)."""
    root = _root(anchor)
    if root is None:
        return None
    inverse, moment = root
    spread = _mean_square(moment)
    if spread is None:
        return None
    squared, nodes, axes, epsilon = spread
    nodes.append(anchor)
    quotient = _quotient(anchor, inverse, nodes)
    if quotient is None:
        return None
    numerator, result = quotient
    found = _kind(squared, numerator, axes, nodes)
    affine = None if found is None else _affine(result, len(axes), nodes)
    if found is None or affine is None:
        return None
    kind, source = found
    result, factor, shift = affine
    return Normalisation(kind, nodes, source, result, axes, epsilon, factor, shift)


def _root(anchor: ir.Node) -> tuple[bool, ir.Value | None] | None:
    """Whether the anchor is the inverse of a square root, and of which value."""
    if anchor.op_type == "Sqrt":
        return False, anchor.inputs[0]
    exponent = constants.scalar(anchor.inputs[1])
    if exponent in (0.5, -0.5):
        return exponent == -0.5, anchor.inputs[0]
    return None


def _mean_square(moment: ir.Value | None) -> tuple[ir.Value, list[ir.Node], tuple[int, ...], float] | None:
    """``mean(v v) + epsilon``: the value ``v``, the nodes, the axes of the mean, and epsilon."""
    add = patterns.producer(moment, "Add")
    parts = None if add is None else patterns.scalar_operand(add)
    if add is None or parts is None or not 0 <= parts[1] <= _LARGEST_EPSILON:
        return None
    mean = patterns.producer(parts[0], "ReduceMean")
    square = None if mean is None else patterns.producer(mean.inputs[0], "Mul", "Pow")
    if mean is None or square is None or square.inputs[0] is None:
        return None
    axes = _axes(mean)
    twice = patterns.reads_twice(square) if square.op_type == "Mul" else constants.scalar(square.inputs[1]) == 2
    return (square.inputs[0], [square, mean, add], axes, parts[1]) if twice and axes is not None else None


def _axes(mean: ir.Node) -> tuple[int, ...] | None:
    """The axes of a mean counted from the end, when they are the last ones and stay as size 1."""
    axes = patterns.integers(mean, "axes")
    if axes is None and len(mean.inputs) > 1:
        array = constants.array(mean.inputs[1])
        axes = None if array is None else tuple(int(axis) for axis in array.ravel())
    rank = patterns.rank(mean.inputs[0])
    if not axes or not patterns.integer(mean, "keepdims", 1) or (rank is None and any(axis >= 0 for axis in axes)):
        return None
    behind = tuple(sorted(axis if axis < 0 or rank is None else axis - rank for axis in axes))
    return behind if behind == tuple(range(-len(behind), 0)) else None


def _quotient(anchor: ir.Node, inverse: bool, nodes: list[ir.Node]) -> tuple[ir.Value, ir.Value] | None:
    """What is divided by the root, and the quotient; ``nodes`` grows by those in between."""
    value = anchor.outputs[0]
    if not inverse:
        node = patterns.only_consumer(value, "Div", "Reciprocal")
        if node is None:
            return None
        nodes.append(node)
        if node.op_type == "Div" and node.inputs[1] is value:
            if constants.scalar(node.inputs[0]) != 1:
                return None if node.inputs[0] is None else (node.inputs[0], node.outputs[0])
        elif node.op_type == "Div":
            return None
        value = node.outputs[0]
    product = patterns.only_consumer(value, "Mul")
    other = None if product is None else patterns.other_operand(product, value)
    if product is None or other is None:
        return None
    nodes.append(product)
    return other, product.outputs[0]


def _kind(
    squared: ir.Value, numerator: ir.Value, axes: tuple[int, ...], nodes: list[ir.Node]
) -> tuple[str, ir.Value] | None:
    """Which of the two it is, and of what, from what was squared and what was divided; ``None`` if these do not fit."""
    below, above = _centred(squared), _centred(numerator)
    if below is not None and above is not None and below.source is above.source and below.axes == above.axes == axes:
        nodes.extend((*below.nodes, *above.nodes))
        return "layer-norm", below.source
    return ("rms-norm", squared) if squared is numerator else None


def _centred(value: ir.Value) -> _Centred | None:
    """``x - mean(x)``; exporters write it once or twice."""
    subtract = patterns.producer(value, "Sub")
    mean = None if subtract is None else patterns.producer(subtract.inputs[1], "ReduceMean")
    if subtract is None or mean is None or subtract.inputs[0] is None or mean.inputs[0] is not subtract.inputs[0]:
        return None
    axes = _axes(mean)
    return None if axes is None else _Centred(subtract.inputs[0], (mean, subtract), axes)


def _affine(
    result: ir.Value, axes: int, nodes: list[ir.Node]
) -> tuple[ir.Value, ir.Value | None, ir.Value | None] | None:
    """Take in the factor and the shift behind: the new result and both; ``None`` if they do not fit that many axes.

    A factor per channel of a map normalised over its pixels is InstanceNorm, so over several axes only a factor that
    has as many dimensions will do.
    """
    found: dict[str, ir.Value] = {}
    for op_type in ("Mul", "Add"):
        node = patterns.only_consumer(result, op_type)
        other = None if node is None else patterns.other_operand(node, result)
        tensor = constants.tensor(other)
        if node is None or tensor is None:
            continue
        sizes = [size for size in tensor.shape.numpy() if size != 1]
        if len(sizes) > axes or (sizes and tensor.shape.numpy()[-1] == 1):
            return None
        nodes.append(node)
        result = node.outputs[0]
        if other is not None:
            found[op_type] = other
    return (result, found.get("Mul"), found.get("Add")) if found or axes == 1 else None
