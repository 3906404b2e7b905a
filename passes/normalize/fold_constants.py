"""Everything that does not depend on the input is computed now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir import shapes
from qcompiler.ir.constants import is_constant
from qcompiler.ir.edit import Edit
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
        refused: dict[ir.Node, str] = {}
        for _ in range(_ROUNDS):
            before = ctx.edit.count
            shapes_matter = _sweep(model, ctx, self.size_limit, refused)
            if ctx.edit.count != before:
                shapes.infer(model)
            if ctx.edit.count == before or not shapes_matter:
                break
        for node, reason in refused.items():
            ctx.skip(node, reason)


def _sweep(model: ir.Model, ctx: Context, limit: int, refused: dict[ir.Node, str]) -> bool:
    """One pass over the graph in topological order; whether there is shape arithmetic that another could fold."""
    arithmetic = ShapeArithmetic()
    for node in list(model.graph):
        if node in refused or not any(is_used(value) for value in node.outputs):
            continue
        tensors, reason = _folded(node, ctx, limit)
        if reason:
            refused[node] = reason
        if tensors is None:
            known = arithmetic.follow(node)
            tensors = None if known is None else [known]
        if tensors is None:
            arithmetic.simplify(node, ctx.edit)
        elif any(output.is_graph_output() for output in node.outputs):
            refused[node] = "its result is an output of the model"
        else:
            _replace(node, tensors, ctx.edit)
    return arithmetic.open_ends > 0


def _folded(node: ir.Node, ctx: Context, limit: int) -> tuple[list[ir.TensorProtocol] | None, str]:
    """The results of a node on constants; ``None`` where it is not one, or must stay for the reason given."""
    inputs = [value for value in node.inputs if value is not None]
    if not inputs or not all(is_constant(value) for value in inputs):
        return None, ""
    if (reason := _evaluate.why_not(node, limit)) is not None:
        return None, reason
    tensors = _evaluate.evaluate(node, ctx.edit)
    if tensors is None:
        return None, "it cannot be computed at compile time"
    size = sum(tensor.nbytes for tensor in tensors)
    source = sum(value.const_value.nbytes for value in inputs if value.const_value is not None)
    if size > limit and size > source:
        return None, f"folding would add {size - source} bytes to the model"
    return tensors, ""


def _replace(node: ir.Node, tensors: list[ir.TensorProtocol], edit: Edit) -> None:
    """Initializers in place of the node's outputs."""
    fed = [value for value in node.inputs if value is not None]
    for output, tensor in zip(node.outputs, tensors, strict=True):
        hand_over(edit, output, edit.constant(str(output.name), tensor))
    edit.remove(node)
    edit.remove_unused(fed)
