"""The decisions of a compile, taken down at the last moment they exist: before they become Q/DQ nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qcompiler.analysis.coverage import Coverage, coverage
from qcompiler.pipeline.base import Fact
from qcompiler.pipeline.instruments.base import Observer
from qcompiler.quant import plan

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.pipeline.base import Context, Pass

__all__ = ["DecisionWatch"]


class DecisionWatch(Observer):
    """Keeps the plan and the coverage.

    A pipeline that never materialises its decisions leaves both empty: its result is a float model.

    Attributes:
        plan: Every decision, as ``plan.json`` has it.
        coverage: What runs on integers, what stays float and why.
    """

    def __init__(self) -> None:
        self.plan: dict[str, Any] = {}
        self.coverage: Coverage | None = None

    @property
    def floating(self) -> frozenset[str]:
        """Names of the nodes that stay float."""
        return frozenset(name for name, entry in self.plan.get("nodes", {}).items() if not entry["integer"])

    def before(self, pass_: Pass, model: ir.Model, ctx: Context) -> None:
        """Take everything down when decisions are about to become nodes."""
        if Fact.QDQ in pass_.provides:
            names = {"target": ctx.target.name} if ctx.target is not None else {}
            self.plan = {"schema": plan.SCHEMA, **names, "format": ctx.format, **plan.dump(model)}
            self.coverage = coverage(model)
