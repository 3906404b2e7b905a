"""How far a shift per channel travels: a layer, an activation, pools and flattening, the layers that read it.

``f(x - c) = f(x) - c`` is what must hold in between. Without an activation it holds for every ``c``. Relu has it where
``x >= c >= 0``, ``Clip(x, 0, b)`` and ``Min(Relu(x), b)`` then as well, with the bound ``b - c``. Pools have it as long
as they average no zeros from beside the image, and the reader where it pads no zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns
from qcompiler.passes.equalize._labels import Labels, Names, move, vector
from qcompiler.passes.equalize._layers import LAYERS, Channels, channels, why_not_layer
from qcompiler.passes.normalize._affine import Affine
from qcompiler.passes.normalize._linear import why_not_before

__all__ = ["Path", "path_behind"]

_MOVING = (
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten", "Reshape", "Squeeze", "Identity",
    "Transpose",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Path:
    """Everything between a layer and the one that reads it.

    Attributes:
        first: The layer.
        last: The layer behind.
        rectified: Whether a Relu or Clip lies in between: then only what stays above 0 can be shifted.
        bound: Clip or Min with an upper bound, if there is one.
        limits: Its bound of each channel, shape ``(channels,)``.
        values: The tensors in between.
        spread: For each input channel of ``last``, the output channel of ``first``.
    """

    first: ir.Node
    last: ir.Node
    rectified: bool = False
    bound: ir.Node | None = None
    limits: NDArray[np.float64] | None = None
    values: list[ir.Value] = field(default_factory=list)
    spread: Names = field(default_factory=lambda: np.zeros(0, np.intp))


def path_behind(first: ir.Node) -> Path | str:
    """The path that begins at a layer, or why a shift of its output cannot be absorbed behind it."""
    if reason := why_not_layer(first):
        return reason
    shape, rank = channels(first), patterns.rank(first.outputs[0])
    if rank is None:
        return "its rank is not known"
    labels, value, found = Labels(), first.outputs[0], Path(first, first)
    names = labels.fresh(shape.outputs)
    labels.put(value, names.reshape([-1 if i == shape.axis % rank else 1 for i in range(rank)]))
    while True:
        found.values.append(value)
        node = patterns.only_consumer(value)
        uses = list(value.uses())
        if node is None or len(uses) != 1:
            return "its result is an output of the model" if value.is_graph_output() else "several nodes read it"
        if patterns.has_type(node, *LAYERS) and uses[0].idx == 0:
            return _ending(found, node, labels.of(value), int(names[0]))
        reason = _pass(node, uses[0].idx, value, found, shape, labels)
        if reason:
            return f"{node.name} ({node.op_type}) behind it {reason}"
        value = node.outputs[0]


def _ending(found: Path, node: ir.Node, names: Names, start: int) -> Path | str:
    reason = why_not_layer(node)
    shape = Channels(0, 0, 1) if reason else channels(node)
    along = None if reason else vector(names, shape.axis, shape.inputs)
    if along is not None:
        reason = why_not_before(node, 0, Affine(np.ones(shape.inputs), np.ones(shape.inputs)))
    if reason or along is None:
        return f"{node.name} behind it: {reason or 'it mixes channels'}"
    found.last, found.spread = node, along - start
    return found


def _pass(node: ir.Node, index: int, value: ir.Value, found: Path, shape: Channels, labels: Labels) -> str:
    """Take one node into the path; returns why it does not belong there."""
    if patterns.has_type(node, *_MOVING) and index == 0:
        pads = any(patterns.integers(node, "pads") or ()) or node.attributes.get_string("auto_pad", "") not in (
            "",
            "NOTSET",
            "VALID",
        )
        if node.op_type == "AveragePool" and pads and patterns.integer(node, "count_include_pad", 0):
            return "averages zeros from beside the image"
        moved = move(node, labels)
        if isinstance(moved, str):
            return moved
        labels.put(node.outputs[0], moved[0])
        return ""
    if labels.of(value).size not in (1, shape.outputs) or len(found.values) > 3:
        return "is no activation right behind the layer"
    labels.put(node.outputs[0], labels.of(value))
    if patterns.has_type(node, "Relu"):
        found.rectified = True
        return ""
    limits = _limits(node, index, value, shape)
    if limits is None or (node.op_type == "Min" and not found.rectified) or found.bound is not None:
        return "does not let a shift pass"
    found.rectified, found.bound, found.limits = True, node, limits
    return ""


def _limits(node: ir.Node, index: int, value: ir.Value, shape: Channels) -> NDArray[np.float64] | None:
    """The upper bound of each channel of ``Clip(x, 0, b)`` or ``Min(x, b)``; ``None`` for anything else."""
    if patterns.has_type(node, "Clip") and index == 0:
        low, high = ([*node.inputs[1:], None, None][i] for i in range(2))
        lower, upper = constants.scalar(low), constants.scalar(high)
        if low is None or high is None or lower != 0 or upper is None or not upper > 0:
            return None
        return np.full(shape.outputs, float(upper))
    other = patterns.other_operand(node, value) if patterns.has_type(node, "Min") else None
    content, rank = constants.array(other), patterns.rank(value)
    if other is None or content is None or rank is None or len(list(other.uses())) != 1:
        return None
    wanted = (1, shape.outputs, *[1] * (rank - 2))
    return content.reshape(-1).astype(np.float64) if content.shape == wanted else None
