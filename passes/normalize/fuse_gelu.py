"""fuse-gelu: a GELU written in elementary operators becomes one operator, where the target has it.

In parts it is a division, Erf or Tanh, a sum and two products, each with codes and a rounding of its own. As one
operator it is one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import onnx_ir as ir

from qcompiler.ir import regions
from qcompiler.passes.normalize._match_activations import gelu_form
from qcompiler.passes.normalize._opset import require
from qcompiler.passes.normalize._rewrite import replace_node
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["FuseGelu"]

_OPSET: Final = 20


@dataclass(frozen=True)
class FuseGelu(Pass):
    """Turn recognized gelu regions into Gelu, exact or with Tanh as they are; ``x * sigmoid(1.702 x)`` stays."""

    name: ClassVar[str] = "fuse-gelu"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.TYPED, Fact.SORTED})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        if ctx.target is None or "Gelu" not in ctx.target.operators or ctx.target.opset < _OPSET:
            return
        for region in regions.regions(model):
            if region.kind != "gelu" or len(region.nodes) == 1:
                continue
            reason = _fuse(region, ctx)
            if reason is not None:
                ctx.skip(region.nodes[-1], f"stays in parts: {reason}")
            else:
                require(model, _OPSET, ctx.edit)


def _fuse(region: regions.Region, ctx: Context) -> str | None:
    """Write the region as one operator; why not where it cannot be."""
    if len(region.inputs) != 1 or len(region.outputs) != 1:
        return "its inner results are used elsewhere"
    (source,), (result,) = region.inputs, region.outputs
    last = result.producer()
    form = gelu_form(source, result)
    if last is None or form is None:
        return "no Gelu is equal to it"
    replace_node(ctx.edit, last, "Gelu", [source], {"approximate": form})
    return None
