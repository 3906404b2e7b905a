"""Who reads a value, in constant time.

``Value.uses()`` copies all uses. Asked once for each of a hundred thousand nodes that share one constant, that is
quadratic; whether there is a reader, and how many, the value knows at once.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["is_read", "is_used", "only_use", "use_count"]


def use_count(value: ir.Value) -> int:
    """How many node inputs read the value."""
    return len(value._uses)  # noqa: SLF001 - the public accessor copies


def is_read(value: ir.Value) -> bool:
    """Whether any node reads the value, in this graph or in a body inside it."""
    return use_count(value) > 0


def is_used(value: ir.Value) -> bool:
    """Whether any node reads the value, or it is an output of a graph."""
    return is_read(value) or value.is_graph_output()


def only_use(value: ir.Value) -> tuple[ir.Node, int] | None:
    """The one (node, input index) that reads the value; ``None`` for none or several."""
    if use_count(value) != 1:
        return None
    use = next(iter(value.uses()))
    return use.node, use.idx
