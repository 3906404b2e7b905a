"""Peak memory of activations: who lives when, over a graph in execution order.

A buffer lives from the node that writes it to the last that reads it, both included; inputs of the graph live from the
start, outputs to the end. A result that is its input seen otherwise, or written by the kernel of the node before, takes
over the buffer. Constants are no activations.

The sum of live bytes is what any allocator needs at the least; placing buffers of different sizes may need more.

For an allocation of bits the peak is no sum over groups, but bytes at a step are, nearly: each buffer that lives there
has the width of whoever reads it (``passes/allocate/_memory_limits.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from qcompiler.analysis.activation_bytes import activation_bytes, in_place
from qcompiler.ir.constants import is_constant

__all__ = ["MemoryPlan", "Step", "buffer_readers", "memory_plan", "memory_steps"]


@dataclass(frozen=True, slots=True)
class Step:
    """One node, and what lives while it runs.

    Attributes:
        node: Its name.
        live: Bytes by buffer, which goes by the name of the first tensor in it, in the order in which they appear.
    """

    node: str
    live: dict[str, int]

    @property
    def bytes(self) -> int:
        """Their sum."""
        return sum(self.live.values())


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The peak.

    Attributes:
        peak: Bytes.
        node: The first node at which it is reached; empty where the graph has none.
        live: Bytes by buffer there, the largest first.
    """

    peak: int
    node: str
    live: dict[str, int]


def memory_plan(graph: ir.Graph, size: Callable[[ir.Value], int] = activation_bytes) -> MemoryPlan:
    """The peak of a graph.

    Args:
        graph: Nodes in execution order, shapes known.
        size: Bytes of an activation; by default in the format assigned to it.
    """
    best = max(memory_steps(graph, size), key=lambda step: step.bytes, default=None)
    if best is None:
        return MemoryPlan(0, "", {})
    return MemoryPlan(best.bytes, best.node, dict(sorted(best.live.items(), key=lambda item: -item[1])))


def memory_steps(graph: ir.Graph, size: Callable[[ir.Value], int] = activation_bytes) -> Iterator[Step]:
    """What lives at every node, in order; buffers without bytes are left out."""
    nodes = list(graph)
    place = {node: index for index, node in enumerate(nodes)}
    roots = _roots(graph)
    first, last, bytes_of = dict[ir.Value, int](), dict[ir.Value, int](), dict[ir.Value, int]()
    for value, root in roots.items():
        producer = value.producer()
        begin = 0 if producer is None else place[producer]
        end = max([begin, *(place.get(reader, len(nodes)) for reader in value.consumers())])
        end = len(nodes) if value.is_graph_output() else end
        first[root] = min(first.get(root, begin), begin)
        last[root] = max(last.get(root, end), end)
        bytes_of[root] = max(bytes_of.get(root, 0), size(value))
    ends: dict[int, list[ir.Value]] = {}
    begins: dict[int, list[ir.Value]] = {}
    for root, count in bytes_of.items():
        if count:
            begins.setdefault(first[root], []).append(root)
            ends.setdefault(last[root], []).append(root)
    live: dict[str, int] = {}
    for index, node in enumerate(nodes):
        live |= {str(root.name): bytes_of[root] for root in begins.get(index, ())}
        yield Step(str(node.name), dict(live))
        for root in ends.get(index, ()):
            del live[str(root.name)]


def buffer_readers(graph: ir.Graph, ends: Collection[str]) -> dict[str, frozenset[str]]:
    """Which nodes of ``ends`` read each buffer, at once or through others, by the name of the first tensor in it.

    Args:
        graph: The graph.
        ends: Names of nodes at which a way ends.
    """
    behind: dict[ir.Node, frozenset[str]] = {}
    for node in reversed(list(graph)):
        readers = {reader for value in node.outputs for reader in value.consumers()}
        ways = (behind.get(reader, frozenset()) for reader in readers)
        name = str(node.name)
        behind[node] = frozenset({name}) if name in ends else frozenset().union(*ways)
    found: dict[str, frozenset[str]] = {}
    for value, root in _roots(graph).items():
        read = (behind.get(reader, frozenset()) for reader in value.consumers())
        found[str(root.name)] = found.get(str(root.name), frozenset()).union(*read)
    return found


def _roots(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """The value that owns the buffer of each activation, in order of appearance."""
    roots = {value: value for value in graph.inputs if not value.is_initializer()}
    for node in graph:
        source = in_place(node)
        for value in node.outputs:
            inherits = source is not None and not is_constant(source) and source in roots
            roots[value] = roots[source] if inherits and source is not None else value
    return roots
