"""Which node of an earlier graph a node was made for: how what is written is counted to the layer that caused it.

``mark`` gives every node of a graph its own name as origin. ``Edit.insert`` hands the origin of the anchor on to what
is inserted beside it, so after any passes each node says whom it serves. Origins live in ``meta``: never in a file.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

__all__ = ["inherit", "mark", "origin", "owners"]

_KEY: Final = "qcompiler.origin"


def mark(graph: ir.Graph) -> None:
    """Make every node of the graph its own origin."""
    for node in graph:
        node.meta[_KEY] = str(node.name)


def inherit(node: ir.Node, anchor: ir.Node) -> None:
    """Give a node the origin of another."""
    if (found := anchor.meta.get(_KEY)) is not None:
        node.meta[_KEY] = found


def origin(node: ir.Node) -> str | None:
    """Name of the node that this one was made for; ``None`` where nothing was marked."""
    found: str | None = node.meta.get(_KEY)
    return found


def owners(value: ir.Value) -> frozenset[str]:
    """Origins of a value: of its producer, or of all its readers where it is a constant; empty where there are none."""
    producer = value.producer()
    if producer is None and value.is_graph_input():
        return frozenset()
    found = (origin(node) for node in ([producer] if producer is not None else value.consumers()))
    return frozenset(name for name in found if name is not None)
