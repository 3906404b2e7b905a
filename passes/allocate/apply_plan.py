"""apply-plan: take the decisions of a plan file instead of making them.

It stands where ``assign-formats`` stands. Parameters that the plan gives are kept; decisions without parameters are
left to ``calibrate`` and ``calibrate-weights``, which follow as usual. Formats by node that the plan holds besides must
agree with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.errors import UsageError
from qcompiler.passes.allocate._plan_formats import check_formats
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import plan, plan_file

__all__ = ["ApplyPlan"]


@dataclass(frozen=True)
class ApplyPlan(Pass):
    """Take formats, ranges and placement from a plan file.

    Attributes:
        path: The ``plan.json``.
    """

    path: str = ""

    name: ClassVar[str] = "apply-plan"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Write the plan's decisions on the main graph."""
        if not self.path:
            raise UsageError("apply-plan needs a file", hint="write apply-plan{path=plan.json}")
        content = plan_file.load(self.path)
        plan.apply(model, content, ctx)
        check_formats(content, model, ctx)
