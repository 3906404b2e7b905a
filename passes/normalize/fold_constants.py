"""Everything that does not depend on the input is computed now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir import shapes
from qcompiler.ir.constants import is_constant
from qcompiler.ir.uses import is_used
from qcompiler.passes.normalize import _evaluate
from qcompiler.passes.normalize._rewrite import hand_over
from qcompiler.passes.normalize._symbolic import ShapeArithmetic
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["FoldConstants"]

_ROUNDS = 4
"""A folded Reshape target makes shapes known that feed further shape arithmetic; four rounds were always enough."""


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes whose result is the same for every input by that result.

    Folds operators on constants, and shape arithmetic (Shape, Gather, Concat, … up to Reshape targets) as far as it
    is proven: a symbolic batch stays symbolic. Results that would blow up the file stay nodes.

    Attributes:
        size_limit: A larger result, in bytes, is folded only if it is not larger than what it is made of.
    """

    name: ClassVar[str] = "fold-constants"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    size_limit: int = 1 << 20

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for _ in range(_ROUNDS):
            before = ctx.edit.count
            shapes_matter = _sweep(model, ctx, self.size_limit)
            if ctx.edit.count == before:
                return
            shapes.infer(model)
            if not shapes_matter:
                return


def _sweep(model: ir.Model, ctx: Context, limit: int) -> bool:
    """One pass over the graph in topological order; whether there is shape arithmetic that another could fold."""
    arithmetic = ShapeArithmetic()
    for node in list(model.graph):
        if not any(is_used(value) for value in node.outputs):
            continue
        tensors = _folded(node, ctx, limit)
        if tensors is None:
            known = arithmetic.follow(node)
            tensors = None if known is None else [known]
        if tensors is not None:
            _replace(node, tensors, ctx)
        else:
            arithmetic.simplify(node, ctx.edit)
    return arithmetic.open_ends > 0


def _folded(node: ir.Node, ctx: Context, limit: int) -> list[ir.TensorProtocol] | None:
    """The results of a node on constants, ``None`` where it is not one or must stay."""
    inputs = [value for value in node.inputs if value is not None]
    if not inputs or not all(is_constant(value) for value in inputs):
        return None
    if (reason := _evaluate.why_not(node, limit)) is not None:
        ctx.skip(node, reason)
        return None
    tensors = _evaluate.evaluate(node, ctx.edit)
    if tensors is None:
        ctx.skip(node, "it cannot be computed at compile time")
        return None
    size = sum(tensor.nbytes for tensor in tensors)
    source = sum(value.const_value.nbytes for value in inputs if value.const_value is not None)
    if size > limit and size > source:
        ctx.skip(node, f"folding would add {size - source} bytes to the model")
        return None
    return tensors


def _replace(node: ir.Node, tensors: list[ir.TensorProtocol], ctx: Context) -> None:
    """Initializers in place of the node's outputs."""
    fed = [value for value in node.inputs if value is not None]
    if any(output.is_graph_output() for output in node.outputs):
        ctx.skip(node, "its result is an output of the model")
        return
    for output, tensor in zip(node.outputs, tensors, strict=True):
        hand_over(ctx.edit, output, ctx.edit.constant(str(output.name), tensor))
    ctx.edit.remove(node)
    ctx.edit.remove_unused(fed)
