"""Which nodes must share a format: those that read one weight, and those that read one stream.

See ``groups``, which says when streams count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import networkx as nx
import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.passes.allocate.integer_nodes import IntegerNodes, results
from qcompiler.quant.operators import LOOKUP

__all__ = ["components"]


def components(
    graph: ir.Graph, nodes: IntegerNodes, members: Mapping[ir.Node, list[int]], *, streams: bool
) -> list[dict[ir.Node, list[int]]]:
    """Members that share a decision, each with its weights; components and members in graph order."""
    ties: nx.Graph[object] = nx.Graph()
    ties.add_nodes_from(members)
    for node, edges in members.items():
        # (A table has a scale per row, so products that read the same weight have codes of their own.)
        role = "table" if node.op_type == LOOKUP else "weight"
        ties.add_edges_from((node, (role, node.inputs[index])) for index in edges)
    if streams:
        for node in graph:
            if nodes.integer(node) and node not in nodes.owner:
                ties.add_edges_from(_stream(node, nodes, chooses=node in members))
    place = {node: position for position, node in enumerate(members)}
    found = []
    for component in nx.connected_components(ties):
        own = sorted((item for item in component if isinstance(item, ir.Node) and item in place), key=place.__getitem__)
        if own:
            found.append({node: members[node] for node in own})
    return sorted(found, key=lambda together: place[next(iter(together))])


def _stream(node: ir.Node, nodes: IntegerNodes, *, chooses: bool) -> Iterator[tuple[object, object]]:
    """What one integer node ties: itself with what it reads, and that with its results where it cannot rescale."""
    rule = nodes.rules[node]
    read = [value for index in nodes.activation_inputs(node) if not is_constant(value := node.inputs[index])]
    if chooses:
        yield from ((node, value) for value in read)
    if read and (rule.kind == "same-scale" or not rule.mixed):
        yield from ((read[0], value) for value in (*read[1:], *results(node, nodes)))
