"""The decisions of a compile, taken down at the last moment they exist: before they become Q/DQ nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qcompiler.pipeline.instruments.base import Observer

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.pipeline.base import Context, Pass

__all__ = ["DecisionWatch", "NodeCoverage"]


@dataclass(frozen=True, slots=True)
class NodeCoverage:
    """Where one operator of the normalized graph runs.

    Attributes:
        name: The node.
        op_type: Its operator.
        integer: Whether it runs on integers.
        reason: Why it stays float.
        computes: Whether it computes with real numbers at all; shape arithmetic does not.
    """

    name: str
    op_type: str
    integer: bool
    reason: str
    computes: bool


class DecisionWatch(Observer):
    """Keeps the plan and the coverage.

    A pipeline that never materialises its decisions leaves both empty: its result is a float model.

    Attributes:
        plan: Every decision, as ``plan.json`` has it; empty until decisions are materialised.
        nodes: One entry per node of the main graph.
    """

    def __init__(self) -> None:
        self.plan: dict[str, Any] = {}
        self.nodes: tuple[NodeCoverage, ...] = ()

    def before(self, pass_: Pass, model: ir.Model, ctx: Context) -> None:  # noqa: ARG002
        """Take everything down when decisions are about to become nodes."""
        from qcompiler.pipeline.base import Fact
        from qcompiler.quant import plan

        if Fact.QDQ in pass_.provides:
            self.plan = plan.dump(model)
            self.nodes = tuple(_coverage(node) for node in model.graph)

    def fallback_share(self) -> float:
        """Operators that compute in float, in percent of those that compute with real numbers at all."""
        computing = [node for node in self.nodes if node.computes]
        return 100 * sum(not node.integer for node in computing) / len(computing) if computing else 100.0


def _coverage(node: ir.Node) -> NodeCoverage:
    from qcompiler.quant import state

    decision = state.node_decision(node)
    integer = decision is not None and decision.integer
    reason = "no decision was made about it" if decision is None else decision.reason
    return NodeCoverage(str(node.name), node.op_type, integer, reason, _computes(node))


def _computes(node: ir.Node) -> bool:
    """Whether the node reads or writes real numbers that are known at run time only."""
    import onnx_ir as ir

    from qcompiler.ir.constants import is_constant

    read = [value for value in node.inputs if value is not None and not is_constant(value)]
    if not read:
        return False
    floating = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
    return any(value.dtype is None or value.dtype in floating for value in (*read, *node.outputs))
