"""In which order nodes can be executed, and what their subgraphs read from outside."""

from __future__ import annotations

import graphlib

import onnx_ir as ir

from qcompiler.errors import ModelError

__all__ = ["execution_order"]


def execution_order(graph: ir.Graph) -> list[tuple[ir.Node, tuple[str, ...]]]:
    """Nodes in an order in which operands come first (the graph's own where it is one), with captured names.

    Raises:
        ModelError: The graph has a cycle.
    """
    nodes = [(node, _captured(node)) for node in graph]
    done: set[ir.Node] = set()
    ordered = True
    needs: dict[ir.Node, list[ir.Node]] = {}
    for node, captured in nodes:
        makers = [value.producer() for value in (*node.inputs, *captured) if value is not None]
        needs[node] = [maker for maker in makers if maker is not None]
        ordered &= done.issuperset(needs[node])
        done.add(node)
    names = {node: tuple(str(value.name) for value in captured) for node, captured in nodes}
    if ordered:
        return list(names.items())
    try:
        return [(node, names[node]) for node in graphlib.TopologicalSorter(needs).static_order()]
    except graphlib.CycleError as error:
        cycle = ", ".join(str(node.name) for node in error.args[1][:5])
        raise ModelError(f"the graph has a cycle: {cycle}", where=graph.name) from error


def _captured(node: ir.Node) -> tuple[ir.Value, ...]:
    """Values of the graph around it that the subgraphs of a node read."""
    bodies = [
        body
        for attribute in node.attributes.values()
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for body in (attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else [attribute.as_graph()])
    ]
    found: dict[ir.Value, None] = {}
    for body in bodies:
        for inner in ir.traversal.RecursiveGraphIterator(body):
            for value in inner.inputs:
                if value is not None and value.graph is node.graph:
                    found[value] = None
    return tuple(found)
