"""infer-shapes: types and shapes of all values, as far as ONNX can tell them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir import shapes
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["InferShapes"]


@dataclass(frozen=True)
class InferShapes(Pass):
    """Fill in types and shapes that are missing; what is known stays."""

    name: ClassVar[str] = "infer-shapes"
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED})
    preserves: ClassVar[Preserves] = Preserves.EXACT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class. One edit per value that was learned about."""
        values = [value for node in model.graph.all_nodes() for value in node.outputs]
        if not any(map(_unknown, values)):
            return
        before = [(value.type, value.shape) for value in values]
        shapes.infer(model)
        for value, (kind, shape) in zip(values, before, strict=True):
            if value.type is not kind or value.shape is not shape:
                ctx.edit.touch()


def _unknown(value: ir.Value) -> bool:
    """Whether there is something to learn about the value; a symbol such as ``N`` counts as known."""
    if value.type is None or value.shape is None:
        return bool(value.name)
    return any(not isinstance(size, int) and size.value is None for size in value.shape)
