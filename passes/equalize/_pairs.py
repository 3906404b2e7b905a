"""Pairs of layers between which a factor per channel can move: A, activations that let it pass, B.

``f(s x) = s f(x)`` for every ``s > 0`` is what an activation needs (positive homogeneity): Relu, LeakyRelu and PRelu
have it, and so has pooling. ``Clip(x, 0, b)`` has it together with its bound: ``Clip(s x, 0, s b) = s Clip(x, 0, b)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns

__all__ = ["LAYERS", "Bound", "Pair", "pair_after", "why_not_layer"]

LAYERS = ("Conv", "ConvTranspose", "Gemm")
_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_FLATTENING = ("Flatten", "Reshape")


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """An activation with an upper bound that scales with its channels.

    Attributes:
        node: ``Clip(x, 0, b)`` or ``Min(x, bounds)``.
        index: Which of its inputs is ``x``.
        values: The bound of each channel, shape ``(channels,)``.
    """

    node: ir.Node
    index: int
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two layers that can trade factors.

    Attributes:
        first: The layer whose output channels are divided.
        second: The layer whose input channels are multiplied.
        spread: How many inputs of ``second`` come from one channel (more than 1 behind a Flatten).
        bounds: Activations on the way that have an upper bound.
    """

    first: ir.Node
    second: ir.Node
    spread: int
    bounds: tuple[Bound, ...]


def why_not_layer(node: ir.Node) -> str:
    """Why the constants of a layer cannot be scaled; empty where they can."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    for value, what in ((weight, "weight"), (bias, "bias")):
        if value is None:
            continue
        if not constants.is_constant(value) or value.dtype != ir.DataType.FLOAT:
            return f"its {what} is not a float constant"
        if value.is_graph_output() or len(list(value.uses())) > 1:
            return f"its {what} is shared with other nodes"
    if weight is None or patterns.rank(weight) is None or 0 in (patterns.static_shape(weight) or (0,)):
        return "its weight is empty"
    if node.op_type == "Gemm" and (
        patterns.integer(node, "transA", 0)
        or patterns.number(node, "alpha", 1.0) != 1.0
        or patterns.number(node, "beta", 1.0) != 1.0
        or (bias is not None and patterns.rank(bias) != 1)
    ):
        return "it is not canonical"
    return ""


def pair_after(first: ir.Node, channels: int) -> Pair | str:
    """The pair that begins at ``first``, or why there is none.

    Args:
        first: A layer whose constants can be scaled.
        channels: Number of its output channels.
    """
    value, spread = first.outputs[0], 1
    bounds: list[Bound] = []
    while True:
        if value.is_graph_output():
            return "its result is an output of the model"
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.graph is not first.graph:
            return f"its result is read by {len(uses)} nodes" if uses else "nothing reads its result"
        node, index = uses[0].node, uses[0].idx
        if patterns.has_type(node, *LAYERS) and index == 0:
            reason = why_not_layer(node)
            return f"{node.name} behind it: {reason}" if reason else Pair(first, node, spread, tuple(bounds))
        passed = _pass(node, index, value, channels)
        if isinstance(passed, str):
            return passed
        if isinstance(passed, Bound):
            bounds.append(passed)
        elif passed is not None:
            spread *= passed
        value = node.outputs[0]


def _pass(node: ir.Node, index: int, value: ir.Value, channels: int) -> Bound | int | str | None:
    """How a factor per channel passes a node: freely, with its bound, spread over features; or why it does not."""
    if patterns.has_type(node, "Clip"):
        return _clip(node, index, channels)
    if patterns.has_type(node, "Min"):
        return _minimum(node, index, value, channels)
    if patterns.has_type(node, *_FLATTENING) and index == 0:
        return _flattened(node, value, channels)
    if not patterns.has_type(node, *_HOMOGENEOUS) or index != 0:
        return f"{node.name} ({node.op_type}) behind it does not let a factor pass"
    if any(item.is_graph_output() or list(item.uses()) for item in node.outputs[1:]):
        return f"{node.name} behind it gives indices too"
    return None


def _clip(node: ir.Node, index: int, channels: int) -> Bound | str | None:
    low, high = ([*node.inputs[1:], None, None][i] for i in range(2))
    lower = None if low is None else constants.scalar(low)
    upper = math.inf if high is None else constants.scalar(high)
    if index != 0 or lower != 0 or upper is None or not upper > 0:
        return f"{node.name} behind it clips at other bounds than 0 and a positive number"
    return None if upper == math.inf else Bound(node, 0, np.full(channels, float(upper)))


def _minimum(node: ir.Node, index: int, value: ir.Value, channels: int) -> Bound | str:
    other = patterns.other_operand(node, value)
    content, rank = constants.array(other), patterns.rank(value)
    shape = (1, channels, *[1] * ((rank or 2) - 2))
    if content is None or rank is None or content.shape != shape or other is None or len(list(other.uses())) != 1:
        return f"{node.name} (Min) behind it has no bound per channel of its own"
    return Bound(node, index, content.reshape(-1).astype(np.float64))


def _flattened(node: ir.Node, value: ir.Value, channels: int) -> int | str:
    """Features per channel behind a Flatten or Reshape to ``[N, channels * features]``."""
    before, after = patterns.static_shape(value), patterns.static_shape(node.outputs[0])
    inner = None if before is None or None in before[1:] else math.prod(int(size or 0) for size in before[1:])
    if before is None or before[1] != channels or not inner or after is None or len(after) != 2 or after[1] != inner:
        return f"{node.name} ({node.op_type}) behind it moves channels"
    return inner // channels
