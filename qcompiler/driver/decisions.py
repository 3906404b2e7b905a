"""The decisions of a compile, taken down at the last moment they exist: before they become Q/DQ nodes.

Lowering may leave nodes in float that were decided to be integer; what it says about them is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qcompiler.analysis.coverage import Coverage, coverage
from qcompiler.analysis.quality import vector_outputs
from qcompiler.passes.allocate.format_marks import ALLOCATION, marked
from qcompiler.passes.allocate.layer_formats import counted, layer_formats
from qcompiler.pipeline.base import Fact
from qcompiler.pipeline.instruments.base import Observer
from qcompiler.quant import plan
from qcompiler.target.formats import resolve_format

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.analysis.allocation.record import Allocation
    from qcompiler.pipeline.base import Context, Pass, PassRecord

__all__ = ["DecisionWatch"]


class DecisionWatch(Observer):
    """Keeps the plan and the coverage.

    A pipeline that never materialises its decisions leaves both empty: its result is a float model.

    Attributes:
        plan: Every decision, as ``plan.json`` has it.
        coverage: What runs on integers, what stays float and why.
        allocation: How formats were chosen among candidates; ``None`` where they were not.
        vectors: Outputs that the graph says are embeddings or states, not scores.
        formats: Format of every node with weights of few bits, by name.
        islands: Why nodes have no integer form, by name; empty where nothing was lowered.
    """

    def __init__(self) -> None:
        self.plan: dict[str, Any] = {}
        self.coverage: Coverage | None = None
        self.islands: dict[str, str] = {}
        self.allocation: Allocation | None = None
        self.vectors: frozenset[str] = frozenset()
        self.formats: dict[str, str] = {}

    @property
    def floating(self) -> frozenset[str]:
        """Names of the nodes that stay float."""
        decided = (name for name, entry in self.plan.get("nodes", {}).items() if not entry["integer"])
        return frozenset((*decided, *self.islands))

    @property
    def format_counts(self) -> Mapping[str, int]:
        """How many nodes with weights of few bits have each format, the widest first."""
        return counted(text for name, text in self.formats.items() if name not in self.islands)

    def before(self, pass_: Pass, model: ir.Model, ctx: Context) -> None:
        """Take everything down when decisions are about to become nodes."""
        if Fact.QDQ in pass_.provides:
            names = {"target": ctx.target.name} if ctx.target is not None else {}
            formats = {str(node.name): own.text for node, own in marked(model.graph)}
            own = {"formats": formats} if formats else {}
            self.plan = {"schema": plan.SCHEMA, **names, "format": ctx.format, **own, **plan.dump(model)}
            self.allocation = model.meta.get(ALLOCATION)
            self.vectors = vector_outputs(model)
            self.coverage = coverage(model)
            if ctx.target is not None:
                self.formats = layer_formats(model.graph, ctx.target, resolve_format(ctx.target, ctx.format or None))

    def after(self, pass_: Pass, model: ir.Model, ctx: Context, record: PassRecord) -> None:
        """Take down what lowering left in float."""
        del model, ctx
        if Fact.LOWERED in pass_.provides:
            self.islands |= {skip.node.rpartition(" (")[0] or skip.node: skip.reason for skip in record.skips}
            if self.coverage is not None:
                self.coverage = self.coverage.without(self.islands)
