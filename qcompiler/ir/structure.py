"""Is this a graph at all: every name is produced, and nothing feeds itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from qcompiler.errors import ModelError

__all__ = ["captured", "check_structure", "find_cycle", "producers"]

_GRAPH_TYPES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def check_structure(model: ir.Model, where: str) -> None:
    """Refuse a model that reads values nothing produces, or that contains a cycle.

    Args:
        model: The model as loaded.
        where: Its file, for the message.

    Raises:
        ModelError: With the name of a node concerned.
    """
    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        for node in graph:
            for value in node.inputs:
                if value is not None and not _has_origin(value):
                    raise ModelError(
                        f"node {_name(node)} reads '{value.name}', which nothing produces", where=where
                    )
        for value in graph.outputs:
            if not _has_origin(value):
                raise ModelError(f"graph output '{value.name}' is produced by nothing", where=where)
        if cycle := find_cycle(graph):
            path = " → ".join(_name(node) for node in cycle[:8]) + (" → …" if len(cycle) > 8 else "")
            raise ModelError(f"the graph contains a cycle: {path} → {_name(cycle[0])}", where=where)


def producers(node: ir.Node) -> Iterator[ir.Node]:
    """Nodes of the same graph that must run before ``node``: those feeding it or its subgraphs."""
    graph = node.graph
    for value in (*node.inputs, *captured(node)):
        if value is not None and (producer := value.producer()) is not None and producer.graph is graph:
            yield producer


def captured(node: ir.Node) -> tuple[ir.Value, ...]:
    """Values that the subgraphs of ``node`` read from outside themselves."""
    if not node.attributes:
        return ()
    graphs = [graph for attribute in node.attributes.values() for graph in _graphs(attribute)]
    if not graphs:
        return ()
    inner = {id(graph) for graph in graphs}
    found: dict[int, ir.Value] = {}
    for graph in graphs:
        for item in ir.traversal.RecursiveGraphIterator(graph):
            inner |= {id(sub) for attribute in item.attributes.values() for sub in _graphs(attribute)}
            found |= {id(value): value for value in item.inputs if value is not None}
        found |= {id(value): value for value in graph.outputs}
    return tuple(value for value in found.values() if id(value.graph) not in inner)


def find_cycle(graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """Nodes of one cycle in order, or an empty list. Linear in nodes and edges."""
    waiting = {node: len(set(producers(node))) for node in graph}
    consumers: dict[ir.Node, list[ir.Node]] = {}
    for node in graph:
        for producer in dict.fromkeys(producers(node)):
            consumers.setdefault(producer, []).append(node)
    ready = deque(node for node, count in waiting.items() if count == 0)
    while ready:
        node = ready.popleft()
        del waiting[node]
        for consumer in consumers.get(node, ()):
            waiting[consumer] -= 1
            if waiting[consumer] == 0:
                ready.append(consumer)
    return _walk_back(waiting)


def _walk_back(stuck: Iterable[ir.Node]) -> list[ir.Node]:
    """A cycle among nodes of which each waits for another one of them."""
    pool = dict.fromkeys(stuck)
    if not pool:
        return []
    node = next(iter(pool))
    seen: dict[ir.Node, int] = {}
    path: list[ir.Node] = []
    while node not in seen:
        seen[node] = len(path)
        path.append(node)
        node = next(producer for producer in producers(node) if producer in pool)
    return path[seen[node] :][::-1]


def _has_origin(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.is_initializer()


def _graphs(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    if attribute.type not in _GRAPH_TYPES or attribute.is_ref() or attribute.value is None:
        return ()
    return (attribute.as_graph(),) if attribute.type == ir.AttributeType.GRAPH else tuple(attribute.as_graphs())


def _name(node: ir.Node) -> str:
    return f"'{node.name}' ({node.op_type})" if node.name else f"({node.op_type} without a name)"
