"""BatchNormalization into the linear layer beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.passes.normalize._affine import Affine, batch_norm, elementwise, keep_statistics
from qcompiler.passes.normalize._linear import (
    LINEAR,
    absorb_after,
    absorb_before,
    channels_out,
    why_not_before,
    why_not_linear,
)
from qcompiler.passes.normalize._rewrite import consumers, hand_over, only_consumer
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["FoldBatchNorm"]


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold BatchNormalization into the Conv, ConvTranspose, Gemm or MatMul before it, else into those behind it.

    What multiplies or shifts each channel by a constant behind such a layer (Mul, Div, Add, Sub: older exports write
    the second half of a BatchNormalization so) is folded the same way. The arithmetic is float64. A weight that other
    nodes read too is copied first. Mean and variance of the normalised tensor stay on it
    (``qcompiler.ir.statistics``).

    Into a layer *behind* it the factor always folds; the offset folds only where the layer does not pad, because
    zeros beside the input are not shifted.
    """

    name: ClassVar[str] = "fold-batch-norm"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.TYPED})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for node in list(model.graph):
            if has_type(node, *LINEAR):
                _fold_into(node, ctx)
        for node in list(model.graph):
            if has_type(node, "BatchNormalization"):
                _fold_forward(node, ctx)


def _fold_into(node: ir.Node, ctx: Context) -> None:
    """Absorb what follows a linear node, as long as it acts on channels alone."""
    if why_not_linear(node):
        return
    channels = channels_out(node)
    total, last = None, node.outputs[0]
    absorbed: list[ir.Node] = []
    while (follower := only_consumer(last)) is not None:
        affine = _affine_of(follower, last, channels)
        if affine is None:
            break
        total = affine if total is None else total.then(affine)
        absorbed.append(follower)
        last = follower.outputs[0]
    if total is not None:
        node = absorb_after(node, total, ctx.edit)
        _bypass(node, absorbed, ctx.edit)
        keep_statistics(node.outputs[0], total)


def _affine_of(node: ir.Node, data: ir.Value, channels: int) -> Affine | None:
    if has_type(node, "BatchNormalization") and node.inputs[0] is data:
        affine, _ = batch_norm(node)  # a refusal is recorded when the node's own turn comes
        return affine if affine is not None and len(affine.scale) == channels else None
    return elementwise(node, data, channels)


def _bypass(node: ir.Node, absorbed: list[ir.Node], edit: Edit) -> None:
    """Remove the absorbed chain; the layer's output takes the name of the chain's."""
    result = node.outputs[0]
    result.shape = absorbed[-1].outputs[0].shape or result.shape
    hand_over(edit, absorbed[-1].outputs[0], result)
    for follower in reversed(absorbed):
        fed = [value for value in follower.inputs if value is not None and value is not result]
        edit.remove(follower)
        edit.remove_unused(value for value in fed if value.is_initializer())


def _fold_forward(node: ir.Node, ctx: Context) -> None:
    """Fold a BatchNormalization that no layer before it took into every layer behind it."""
    affine, reason = batch_norm(node)
    if affine is None:
        ctx.skip(node, reason)
        return
    source, result = node.inputs[0], node.outputs[0]
    producer = None if source is None else source.producer()
    before = _why_not_backward(producer, source)
    readers = consumers(result)
    if result.is_graph_output() or not readers or source is None:
        ctx.skip(node, f"{before}; its result is an output of the model")
        return
    for consumer, index in readers:
        if reason := why_not_before(consumer, index, affine):
            ctx.skip(node, f"{before}; {consumer.name} behind it: {reason}")
            return
    for consumer, _ in readers:
        absorb_before(consumer, affine, ctx.edit)
    ctx.edit.replace_uses(result, source)
    fed = [value for value in node.inputs[1:] if value is not None]
    ctx.edit.remove(node)
    ctx.edit.remove_unused(fed)


def _why_not_backward(producer: ir.Node | None, source: ir.Value | None) -> str:
    """Why the layer before did not take it, in words."""
    if producer is None:
        return "it normalises an input of the model"
    if not has_type(producer, *LINEAR):
        return f"{producer.op_type} before it is not linear"
    if source is not None and only_consumer(source) is None:
        return f"the result of {producer.name} is used elsewhere too"
    return f"{producer.name} before it: {why_not_linear(producer) or 'number of channels differs'}"
