"""A pass and a metric of one's own: name this file with ``--plugin``, or the class in an entry point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.metrics import metric
from qcompiler.ir.constants import scalar
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves


@dataclass(frozen=True)
class DropMultiplyByOne(Pass):
    """Remove Mul nodes whose second operand is the constant 1."""

    name: ClassVar[str] = "drop-multiply-by-one"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.EXACT

    limit: int = 1000

    def run(self, model: ir.Model, ctx: Context) -> None:
        for node in [node for node in model.graph if node.op_type == "Mul"][: self.limit]:
            data, factor = node.inputs
            if scalar(factor) != 1 or data is None or data.shape != node.outputs[0].shape:
                ctx.skip(node, "it does something")
                continue
            ctx.edit.replace_uses(node.outputs[0], data)
            ctx.edit.remove(node)


@metric("largest-error", higher_is_better=False)
def largest_error(reference: Any, candidate: Any) -> float:
    return float(np.abs(reference - candidate).max())
