"""Sum → Add, which every target knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.passes.normalize._rewrite import replace_node
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["SumToAdd"]


@dataclass(frozen=True)
class SumToAdd(Pass):
    """Sum of two inputs → Add, of more → a chain of Adds in the same order, of one → nothing.

    Runtimes have integer kernels for Add but not for Sum: residual networks that use Sum stay half in float otherwise.
    """

    name: ClassVar[str] = "sum-to-add"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for node in list(model.graph):
            if has_type(node, "Sum"):
                _rewrite(node, ctx.edit)


def _rewrite(node: ir.Node, edit: Edit) -> None:
    first, *rest = [value for value in node.inputs if value is not None]
    if not rest:
        edit.replace_uses(node.outputs[0], first)
        edit.remove(node)
        return
    for value in rest[:-1]:
        partial = edit.insert("Add", [first, value], before=node, name=f"{node.name}_part").outputs[0]
        partial.type = node.outputs[0].type
        first = partial
    replace_node(edit, node, "Add", [first, rest[-1]])
