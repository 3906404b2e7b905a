"""Weight-only formats: which weights are kept in few bits; all activations stay real numbers.

A matrix product counts when its weight is a constant matrix that the profile's rule takes. The output head is one like
any other. An embedding that is looked up (Gather) multiplies nothing: its table has a scale per row and 8 bits unless a
mark asks for fewer, which loses less than anything else. Where head and embedding are tied, that is share one tensor,
each gets codes of its own, so that both read what suits them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import has_type
from qcompiler.passes.allocate.format_marks import followed, kept_table
from qcompiler.quant import state
from qcompiler.quant.integer.linear import WIDE_DEPTH
from qcompiler.quant.operators import LINEAR, LOOKUP, TABLE_INPUT, WEIGHT_INPUT
from qcompiler.quant.state import NodeDecision, TensorQuant
from qcompiler.target.axes import block_axis, channel_axis
from qcompiler.target.formats import FormatRequest, weight_only_format
from qcompiler.target.legality import why_not_constraints
from qcompiler.target.rules import rule_for, why_no_rows
from qcompiler.target.schema import OperatorRule, Target

if TYPE_CHECKING:
    from qcompiler.pipeline.base import Context

__all__ = ["assign_weights"]


def assign_weights(
    graph: ir.Graph, request: FormatRequest, of_tables: FormatRequest, excluded: dict[ir.Node, str], ctx: Context
) -> None:
    """Decide on every node of ``graph``: formats go on the edges that read weights, nothing else is quantized.

    Args:
        graph: The graph.
        request: What nodes without a mark follow.
        of_tables: The same of nodes that look up a table.
        excluded: Nodes that stay float, and the user's word for it.
        ctx: The target; notes go here.
    """
    target = ctx.target
    if target is None:
        return
    for node in graph:
        rule = rule_for(target, node)
        reason = f"excluded by '{excluded[node]}'" if node in excluded else _why_float(node, rule, target)
        state.set_node_decision(node, NodeDecision(not reason, reason))
        if reason or rule is None:
            ctx.skip(node, reason)
            continue
        looks_up = node.op_type == LOOKUP
        asked = of_tables if looks_up else request
        own = followed(node, asked)
        choice = weight_only_format(rule, own)
        if choice.reason and (not looks_up or own is not asked):  # (nobody asked for the bits of tables)
            ctx.note(f"{node.name}: {choice.reason}")
        if looks_up and (text := kept_table(node, request, choice.format.bits)):
            ctx.note(text)
        state.set_edge_quant(node, TABLE_INPUT if looks_up else WEIGHT_INPUT, TensorQuant(choice.on(node)))
    _note_shared(graph, ctx)


def _why_float(node: ir.Node, rule: OperatorRule | None, target: Target) -> str:
    """Why a node keeps a float weight, or has none; empty where it is stored in few bits."""
    if node.op_type == LOOKUP and not node.domain and rule is not None and is_constant(node.inputs[TABLE_INPUT]):
        return why_no_rows(node) if rule.weight_only else f"{target.name} looks up no tables of few bits"
    if node.op_type not in LINEAR or node.domain:
        return "it has no weight: activations stay real numbers"
    if rule is None or not rule.weight_only:
        return f"{target.name} has no {node.op_type} of real activations and weights of few bits"
    weight = node.inputs[WEIGHT_INPUT]
    if weight is None or not is_constant(weight):
        first = is_constant(node.inputs[0])
        return "its constant matrix comes first" if first else "it multiplies two activations"
    if weight.dtype is not ir.DataType.FLOAT or node.outputs[0].dtype not in (None, ir.DataType.FLOAT):
        return "it carries no float32 data"
    if channel_axis(node) is None:
        return "its weight is no matrix"
    return _why_shape(node, weight) or why_not_constraints(rule.constraints, node) or ""


def _why_shape(node: ir.Node, weight: ir.Value) -> str:
    summed = block_axis(node)
    shape = [size for size in weight.shape or () if isinstance(size, int)]
    if summed is None or 0 in shape:
        return "its weight is empty: there is nothing to compute"
    if shape[summed] > WIDE_DEPTH:
        return f"its sums have {shape[summed]} products, at most {WIDE_DEPTH} are exact"
    return ""


def _note_shared(graph: ir.Graph, ctx: Context) -> None:
    """Say where a weight is stored twice: as codes for products, as floats for whoever else reads it."""
    for value, readers in _shared(graph):
        ctx.note(f"'{value.name}' is kept in float as well: {', '.join(readers)} reads it")


def _shared(graph: ir.Graph) -> Iterator[tuple[ir.Value, list[str]]]:
    for value in graph.initializers.values():
        uses = list(value.uses())
        quantized = [use for use in uses if state.own_edge_quant(use.node, use.idx) is not None]
        readers = [f"{use.node.name} ({use.node.op_type})" for use in uses if use not in quantized]
        if quantized and readers and any(not has_type(use.node, "Shape") for use in uses):
            yield value, readers
