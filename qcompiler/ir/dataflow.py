"""Views of a graph for analyses: who feeds whom, chains, groups that must agree, lifetimes. All in linear time.

The views are snapshots: they do not follow later edits. Values captured by bodies of If, Loop and Scan count as
inputs of the node that has the body.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, TypeVar

import onnx_ir as ir

from qcompiler.ir.structure import captured

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["chains", "digraph", "lifetimes", "ties"]

T = TypeVar("T", bound=Hashable)


def digraph(graph: ir.Graph) -> nx.DiGraph[ir.Node]:
    """Nodes of ``graph``, in its order, with an edge from producer to consumer.

    Each edge has an attribute ``values``: the tensors that run along it, without repetition.
    """
    import networkx as nx

    view: nx.DiGraph[ir.Node] = nx.DiGraph()
    view.add_nodes_from(graph)
    for node in graph:
        for value in (*node.inputs, *captured(node)):
            producer = value.producer() if value is not None else None
            if producer is None or producer.graph is not graph:
                continue
            if not view.has_edge(producer, node):
                view.add_edge(producer, node, values=[value])
            elif value not in (values := view.edges[producer, node]["values"]):
                values.append(value)
    return view


def chains(graph: ir.Graph) -> list[list[ir.Node]]:
    """The nodes of ``graph`` cut into maximal chains, in the order of their first nodes.

    Along a chain every node feeds exactly the next one, which is fed by nothing else in the graph; no tensor in
    between is a graph output.
    """
    view = digraph(graph)

    def follower(node: ir.Node) -> ir.Node | None:
        following = list(view.successors(node))
        if len(following) != 1 or any(value.is_graph_output() for value in node.outputs):
            return None
        return following[0] if view.in_degree(following[0]) == 1 else None

    followed = {item for node in graph if (item := follower(node)) is not None}
    found = []
    for node in graph:
        if node in followed:
            continue
        chain = [node]
        while (following := follower(chain[-1])) is not None:
            chain.append(following)
        found.append(chain)
    return found


def ties(pairs: Iterable[tuple[T, T]]) -> list[list[T]]:
    """Groups of things that belong together, from pairs that do; groups and members in order of first mention."""
    from networkx.utils import UnionFind

    union: UnionFind = UnionFind()
    order: dict[T, None] = {}
    for first, second in pairs:
        union.union(first, second)
        order |= {first: None, second: None}
    groups: dict[T, list[T]] = {}
    for item in order:
        groups.setdefault(union[item], []).append(item)
    return list(groups.values())


def lifetimes(graph: ir.Graph) -> dict[ir.Value, tuple[int, int]]:
    """When each tensor must exist: index of the node that makes it and of the last node that reads it.

    Graph inputs are made at -1; graph outputs are read at ``len(graph)``; a tensor nobody reads dies where it is
    made. Initializers are left out.
    """
    alive: dict[ir.Value, tuple[int, int]] = {
        value: (-1, -1) for value in graph.inputs if not value.is_initializer()
    }
    for index, node in enumerate(graph):
        for value in (*node.inputs, *captured(node)):
            if value in alive:
                alive[value] = (alive[value][0], index)
        alive.update((value, (index, index)) for value in node.outputs if value.name)
    for value in graph.outputs:
        if value in alive:
            alive[value] = (alive[value][0], len(graph))
    return alive
