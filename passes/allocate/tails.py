"""What lies between a float node and the outputs stays float, where the graph is to be integer-only.

A node without an integer form in the middle of a graph is an island: codes become real numbers before it and codes
again behind it. Behind the *last* island, as long as no matrix product follows, the way back to codes buys nothing: the
pooling and normalization at the end of a sentence encoder divide by computed numbers, and what little is done between
them is done in real numbers, up to the output. So the integers end once, where they end first. What reads nothing but
what comes from a matrix product on integers reads codes, whatever lies before that.
"""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.quant.operators import LINEAR

__all__ = ["tail"]


def tail(graph: ir.Graph, integer: set[ir.Node]) -> list[ir.Node]:
    """Integer nodes behind a float island from which no integer matrix product can be reached.

    Args:
        graph: The graph, sorted.
        integer: Nodes decided to run on integers.

    Returns:
        Those nodes in graph order.
    """
    fed: set[ir.Node] = set()  # behind an integer node
    behind: set[ir.Node] = set()  # behind a float node that is behind an integer node, with no integers kept between
    heavy = _before_products(graph, integer)
    for node in graph:
        producers = [producer for value in node.inputs if value is not None and (producer := value.producer())]
        if any(producer in integer or producer in fed for producer in producers):
            fed.add(node)
        passed = (producer for producer in producers if producer not in heavy or producer not in integer)
        if any(producer in behind or _is_island(producer, integer, fed) for producer in passed):
            behind.add(node)
    return [node for node in graph if node in integer and node in behind and node not in heavy]


def _before_products(graph: ir.Graph, integer: set[ir.Node]) -> set[ir.Node]:
    """Integer matrix products, and all nodes from which one can be reached."""
    found: set[ir.Node] = set()
    for node in reversed(list(graph)):
        readers = [reader for output in node.outputs for reader in output.consumers()]
        if (node.op_type in LINEAR and node in integer) or any(reader in found for reader in readers):
            found.add(node)
    return found


def _is_island(node: ir.Node, integer: set[ir.Node], fed: set[ir.Node]) -> bool:
    floating = any(output.dtype is ir.DataType.FLOAT for output in node.outputs)
    return floating and node not in integer and node in fed
