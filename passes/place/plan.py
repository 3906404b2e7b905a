"""The pure planner of Q/DQ placement: from decisions on values and edges to the list of pairs to insert.

It looks at the producer and at every consumer of each value and never edits. For one value there are at most three
kinds of reader:

* edges that follow the value's own decision share one pair (the *main* pair),
* edges with their own decision share one pair per equal decision,
* float edges need no pair of their own.

Where the producer is an integer kernel that writes codes, nothing but the main pair may read the raw tensor: float
readers and other pairs read what the main DequantizeLinear gives back (a requantization). Where the producer is
float, they read the raw tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from qcompiler.quant import state
from qcompiler.quant.state import FLOAT, TensorQuant

__all__ = ["Edge", "Pair", "ValuePlan", "plan_value", "plan_values"]


@dataclass(frozen=True, slots=True)
class Edge:
    """One input of one node."""

    node: ir.Node
    index: int


@dataclass(frozen=True, slots=True)
class Pair:
    """One QuantizeLinear/DequantizeLinear pair and the edges that read it."""

    quant: TensorQuant
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class ValuePlan:
    """What to insert after one value.

    Attributes:
        value: The value.
        main: The pair of the value's own decision; ``None`` where only edges have decisions.
        others: Pairs of edges that differ.
        after_main: Whether ``others``, float readers and a graph output read the main pair's result.
        float_edges: Edges that read real numbers.
    """

    value: ir.Value
    main: Pair | None
    others: tuple[Pair, ...]
    after_main: bool
    float_edges: tuple[Edge, ...]


def plan_value(value: ir.Value) -> ValuePlan | None:
    """Plan one value; ``None`` when nothing reads it in quantized form."""
    own = state.value_quant(value)
    following: list[Edge] = []
    floating: list[Edge] = []
    groups: list[tuple[TensorQuant, list[Edge]]] = []
    for node, index in value.uses():
        decision = state.own_edge_quant(node, index)
        edge = Edge(node, index)
        inner = node.graph is not value.graph  # bodies of If, Loop and Scan stay float
        if inner or decision is FLOAT or (decision is None and own is None):
            floating.append(edge)
        elif decision is None or decision == own:
            following.append(edge)
        else:
            _add_to_group(groups, decision, edge)
    if own is None and not groups:
        return None
    producer = value.producer()
    codes_only = own is not None and producer is not None and _writes_codes(producer)
    main = Pair(own, tuple(following)) if own is not None and (following or codes_only) else None
    if main is None and not groups:
        return None
    return ValuePlan(
        value, main, tuple(Pair(quant, tuple(edges)) for quant, edges in groups), codes_only, tuple(floating)
    )


def plan_values(graph: ir.Graph) -> list[ValuePlan]:
    """Plan every value of a graph, in graph order (inputs, initializers, node outputs)."""
    values = [*graph.inputs, *(v for v in graph.initializers.values() if not v.is_graph_input())]
    values += [output for node in graph for output in node.outputs]
    return [plan for value in values if (plan := plan_value(value)) is not None]


def _add_to_group(groups: list[tuple[TensorQuant, list[Edge]]], quant: TensorQuant, edge: Edge) -> None:
    for known, edges in groups:
        if known.format == quant.format and known.params == quant.params:
            edges.append(edge)
            return
    groups.append((quant, [edge]))


def _writes_codes(producer: ir.Node) -> bool:
    decision = state.node_decision(producer)
    return decision is not None and decision.integer
