"""What nothing reads is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir.uses import is_used
from qcompiler.pipeline.base import Context, Pass, Preserves

__all__ = ["RemoveDeadCode"]


@dataclass(frozen=True)
class RemoveDeadCode(Pass):
    """Remove nodes without used outputs and initializers without uses.

    A value read inside the body of an If, Loop or Scan counts as used. Graph inputs stay, they are the interface.
    """

    name: ClassVar[str] = "remove-dead-code"
    preserves: ClassVar[Preserves] = Preserves.EXACT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for node in reversed(list(model.graph)):
            if not any(is_used(value) for value in node.outputs):
                ctx.edit.remove(node)
        for value in list(model.graph.initializers.values()):
            if not is_used(value) and not value.is_graph_input():
                ctx.edit.remove_initializer(value)
