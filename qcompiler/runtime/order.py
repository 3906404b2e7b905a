"""In which order nodes can be executed."""

from __future__ import annotations

import graphlib

import onnx_ir as ir

from qcompiler.errors import ModelError
from qcompiler.ir.structure import producers

__all__ = ["execution_order"]


def execution_order(graph: ir.Graph) -> list[ir.Node]:
    """Nodes in an order in which operands come first: the graph's own where it is one.

    Raises:
        ModelError: The graph has a cycle.
    """
    done: set[ir.Node] = set()
    ordered = True
    needs: dict[ir.Node, list[ir.Node]] = {}
    for node in graph:
        needs[node] = list(producers(node))
        ordered &= done.issuperset(needs[node])
        done.add(node)
    if ordered:
        return list(needs)
    try:
        return list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        cycle = ", ".join(str(node.name) for node in error.args[1][:5])
        raise ModelError(f"the graph has a cycle: {cycle}", where=graph.name) from error
