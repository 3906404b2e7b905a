"""Clamping activations in the form that kernels fuse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from qcompiler.ir.constants import scalar, tensor
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.passes.normalize._rewrite import hand_over, only_consumer, replace_node
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["CanonicalizeActivations"]

_CLAMPS = ("Relu", "Clip", "Min", "Max")


@dataclass(frozen=True)
class CanonicalizeActivations(Pass):
    """Relu, Clip, and Min or Max with one number become one Relu or Clip; chains of them merge.

    Relu is ``Clip(0, ∞)``, so a Relu followed by ``Clip(0, 6)`` is that Clip. Bounds of a Clip are scalar initializers.
    HardSwish, Gelu and others stay as they are.
    """

    name: ClassVar[str] = "canonicalize-activations"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.TYPED})
    preserves: ClassVar[Preserves] = Preserves.EXACT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for node in list(model.graph):
            if node.graph is None or not has_type(node, *_CLAMPS):
                continue
            bounds = _bounds(node)
            if bounds is None:
                if has_type(node, "Clip"):
                    ctx.skip(node, "its bounds are not constant numbers of a float type")
                continue
            _rewrite(node, bounds, ctx.edit)


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """Lower and upper bound of a clamp of a float tensor, ``None`` where it is no clamp with fixed bounds."""
    output = node.outputs[0]
    if output.dtype is None or not output.dtype.is_floating_point():
        return None
    if has_type(node, "Relu"):
        return 0.0, math.inf
    if has_type(node, "Clip"):
        low, high = (_bound(node, 1, -math.inf), _bound(node, 2, math.inf))
        return None if low is None or high is None else (min(low, high), high)
    if len(node.inputs) != 2 or (operand := _number_operand(node)) is None:
        return None
    number = scalar(node.inputs[operand])
    if number is None or math.isnan(number):
        return None
    return (float(number), math.inf) if node.op_type == "Max" else (-math.inf, float(number))


def _bound(node: ir.Node, index: int, default: float) -> float | None:
    if len(node.inputs) <= index or node.inputs[index] is None:
        return default
    number = scalar(node.inputs[index])
    return None if number is None or math.isnan(number) else float(number)


def _number_operand(node: ir.Node) -> int | None:
    """Which input of Min or Max is a single number that does not widen the result."""
    for index in (0, 1):
        found, other = tensor(node.inputs[index]), node.inputs[1 - index]
        if found is None or found.size != 1:
            continue
        dimensions = None if other is None or other.shape is None else len(other.shape)
        if len(found.shape) == 0 or (dimensions is not None and len(found.shape) <= dimensions):
            return index
    return None


def _data(node: ir.Node) -> ir.Value | None:
    index = _number_operand(node) if has_type(node, "Min", "Max") else None
    return node.inputs[0 if index is None else 1 - index]


def _rewrite(node: ir.Node, bounds: tuple[float, float], edit: Edit) -> None:
    """Merge the clamps that follow, and write the result in its one form."""
    source, last = _data(node), node
    while (follower := only_consumer(last.outputs[0])) is not None and has_type(follower, *_CLAMPS):
        more = _bounds(follower)
        if more is None or _data(follower) is not last.outputs[0]:
            break
        bounds = (min(max(bounds[0], more[0]), more[1]), max(min(bounds[1], more[1]), more[0]))
        last = follower
    low, high = bounds
    merged = last is not node
    if not merged and _is_canonical(node, low, high):
        return
    if merged:
        hand_over(edit, last.outputs[0], node.outputs[0])
        edit.remove_unused([last.outputs[0]])
    if low == 0 and high == math.inf:
        replace_node(edit, node, "Relu", [source])
        return
    dtype = np.float32 if source is None or source.dtype is None else source.dtype.numpy()
    limits = [
        None if bound == unbounded else edit.constant(f"{node.name}_{label}", np.array(bound, dtype))
        for label, bound, unbounded in (("min", low, -math.inf), ("max", high, math.inf))
    ]
    replace_node(edit, node, "Clip", [source, *(limits if limits[1] is not None else limits[:1])])


def _is_canonical(node: ir.Node, low: float, high: float) -> bool:
    """Whether the node is a Relu, or a Clip that is none and has scalar bounds."""
    if has_type(node, "Relu"):
        return True
    if not has_type(node, "Clip") or (low == 0 and high == math.inf):
        return False
    bounds = [tensor(value) for value in node.inputs[1:] if value is not None]
    infinite = any(bound is not None and math.isinf(float(bound.numpy().reshape(()))) for bound in bounds)
    return not infinite and all(bound is not None and len(bound.shape) == 0 for bound in bounds)
