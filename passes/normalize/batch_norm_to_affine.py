"""BatchNormalization that could not be folded becomes Mul and Add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import rank
from qcompiler.passes.normalize._affine import batch_norm, elementwise, keep_statistics
from qcompiler.passes.normalize._rewrite import hand_over, only_consumer, replace_node
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["BatchNormToAffine"]


@dataclass(frozen=True)
class BatchNormToAffine(Pass):
    """BatchNormalization → Mul and Add with one constant per channel, merged with those that follow it.

    Targets know Mul and Add; few know BatchNormalization.
    """

    name: ClassVar[str] = "batch-norm-to-affine"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.TYPED})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for node in list(model.graph):
            if node.graph is not None and has_type(node, "BatchNormalization"):
                _rewrite(node, ctx)


def _rewrite(node: ir.Node, ctx: Context) -> None:
    affine, reason = batch_norm(node)
    dimensions = rank(node.inputs[0]) or rank(node.outputs[0])
    if affine is None or dimensions is None:
        ctx.skip(node, reason or "the rank of its input is not known")
        return
    edit, last = ctx.edit, node
    while (follower := only_consumer(last.outputs[0])) is not None:
        more = elementwise(follower, last.outputs[0], len(affine.scale))
        if more is None:
            break
        affine, last = affine.then(more), follower
    if last is not node:
        _skip_chain(node, last, ctx)
    shape = (len(affine.scale), *[1] * (dimensions - 2))
    scale = edit.constant(f"{node.name}_scale", affine.scale.astype(np.float32).reshape(shape))
    shift = edit.constant(f"{node.name}_shift", affine.shift.astype(np.float32).reshape(shape))
    product = edit.insert("Mul", [node.inputs[0], scale], before=node, name=f"{node.name}_mul").outputs[0]
    product.type, product.shape = node.outputs[0].type, node.outputs[0].shape
    result = replace_node(edit, node, "Add", [product, shift]).outputs[0]
    keep_statistics(result, affine)


def _skip_chain(node: ir.Node, last: ir.Node, ctx: Context) -> None:
    """Let the consumers of ``last`` read ``node``, whose output takes over the name."""
    result = last.outputs[0]
    hand_over(ctx.edit, result, node.outputs[0])
    ctx.edit.remove_unused([result])
