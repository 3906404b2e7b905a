"""assign-formats: decide which nodes run on integers and in which format every tensor is kept.

Everything comes from the profile and the requested format; nothing is edited. A weight-only format (``w4``) concerns
matrix products alone and is decided in ``weight_only``. The result is state on nodes, values
and edges (``qcompiler.quant.state``), which ``calibrate`` completes and ``place-qdq`` materialises.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.errors import PassError, UsageError
from qcompiler.passes.allocate.edge_formats import Use, assign_tensors, tie_scales
from qcompiler.passes.allocate.format_marks import followed, kept_table
from qcompiler.passes.allocate.integer_nodes import IntegerNodes, decide
from qcompiler.passes.allocate.selectors import select
from qcompiler.passes.allocate.weight_only import assign_weights
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.operators import LOOKUP
from qcompiler.target.formats import FormatRequest, resolve_format, table_request, weight_format

__all__ = ["AssignFormats"]


@dataclass(frozen=True)
class AssignFormats(Pass):
    """Decide on formats: the bits asked for, of the model or of a node (``format_marks``), where the profile allows.

    Attributes:
        tables: Whether tables that are looked up follow the model's format, too; else they have 8 bits unless a mark
            says otherwise.
    """

    name: ClassVar[str] = "assign-formats"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})

    tables: bool = False

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Write decisions on the main graph; bodies of If, Loop and Scan stay float."""
        if ctx.target is None:
            raise UsageError("assign-formats needs a target", hint="name one with --target")
        graph = model.graph
        state.clear(graph)
        request = resolve_format(ctx.target, ctx.format or ctx.target.default_format)
        excluded = select(graph, ctx.exclude)
        if request.weight_only:
            assign_weights(graph, request, self._of_tables(request), excluded, ctx)
            _check_any(graph, ctx.target.name)
            return
        nodes = decide(graph, ctx.target, excluded)
        assign_tensors(graph, nodes, request, _weight_formats(graph, nodes, request, self._of_tables(request), ctx))
        tie_scales(graph, nodes)
        for node, decision in nodes.decisions.items():
            state.set_node_decision(node, decision)
            if not decision.integer:
                ctx.skip(node, decision.reason)
        _check_any(graph, ctx.target.name)

    def _of_tables(self, request: FormatRequest) -> FormatRequest:
        return request if self.tables else table_request(request)


def _weight_formats(
    graph: ir.Graph, nodes: IntegerNodes, request: FormatRequest, of_tables: FormatRequest, ctx: Context
) -> dict[ir.Value, dict[Use, QFormat]]:
    """The format in which each integer node keeps its weight."""
    found: dict[ir.Value, dict[Use, QFormat]] = {}
    for node in graph:
        if not nodes.integer(node) or node in nodes.owner:
            continue
        for index, value in enumerate(node.inputs):
            if value is None or nodes.role(node, index) != "weight":
                continue
            asked = of_tables if node.op_type == LOOKUP else request
            own = followed(node, asked)
            choice = weight_format(nodes.rules[node], own)
            if choice.reason and (node.op_type != LOOKUP or own is not asked):  # (nobody asked for the bits of tables)
                ctx.note(f"{node.name}: {choice.reason}")
            if node.op_type == LOOKUP and (text := kept_table(node, request, choice.format.bits)):
                ctx.note(text)
            found.setdefault(value, {})[node, index] = choice.on(node)
    return found


def _check_any(graph: ir.Graph, target: str) -> None:
    """Refuse a model of which nothing is quantized, with the reasons."""
    decisions = [decision for node in graph if (decision := state.node_decision(node)) is not None]
    if any(decision.integer for decision in decisions):
        return
    reasons = Counter(decision.reason for decision in decisions)
    most = "; ".join(f"{reason} ({count}×)" for reason, count in reasons.most_common(3))
    raise PassError(
        f"no node of this model can run on integers on {target}: {most}",
        hint="look at `qcompiler targets NAME` for what the profile takes, and at --exclude",
    )
