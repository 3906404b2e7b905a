"""What stands between neighbours whose activations have different widths, and what it costs in a file.

A tensor that is read in two widths is requantized, and whether it is depends on several groups at once, so no option
has that cost alone. It is estimated: runs in which groups have one of two widths at random show what each tensor costs
where it is read in both; a group that leaves the width of the base is charged for every tensor at its border.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.file_parts import FileParts
from qcompiler.ir.constants import is_constant

__all__ = ["estimated_borders", "mixed_plans"]

_RUNS: Final = 3
_LEAST: Final = 64
"""Bytes below which a difference is one of digits."""


def mixed_plans(groups: Mapping[str, Sequence[str]], first: str, second: str) -> list[dict[str, str]]:
    """Plans in which each group has one of two formats: by turns, and at random."""
    generator = np.random.default_rng(0)
    plans = [{name: (first, second)[index % 2] for index, name in enumerate(groups)}]
    plans += [{name: str(generator.choice((first, second))) for name in groups} for _ in range(_RUNS)]
    return [{node: plan[name] for name, nodes in groups.items() for node in nodes} for plan in plans]


def estimated_borders(
    graph: ir.Graph,
    groups: Mapping[str, Sequence[str]],
    uniform: Iterable[FileParts],
    mixed: Iterable[FileParts],
) -> dict[str, int]:
    """Bytes at the border of each group.

    Args:
        graph: The float graph.
        groups: Names of nodes by group.
        uniform: Files in which all groups have one format.
        mixed: Files of ``mixed_plans``: what a node has there more than in any other is a border.
    """
    runs, seen = list(uniform), dict[str, int]()
    for parts in mixed:
        for owners, size in parts.nodes.items():
            more = size - max(run.nodes.get(owners, 0) for run in runs)
            if len(owners) == 1 and more >= _LEAST:
                name = min(owners)
                seen[name] = max(more, seen.get(name, 0))
    usual = int(np.median(list(seen.values()))) if seen else 0
    group_of = {name: group for group, names in groups.items() for name in names}
    return {group: sum(seen.get(name, usual) for name in _producers(graph, group, group_of)) for group in groups}


def _producers(graph: ir.Graph, group: str, group_of: Mapping[str, str]) -> set[str]:
    """Producers of the tensors that a group reads from elsewhere or writes for others; inputs of the graph as such."""
    found: set[str] = set()
    for node in graph:
        if group_of.get(str(node.name)) != group:
            continue
        read = (value for value in node.inputs if value is not None and not is_constant(value))
        for value in read:
            producer = value.producer()
            if not _inside(producer, group, group_of):
                found.add(str(value.name if producer is None else producer.name))
        for value in node.outputs:
            if len(list(value.uses())) > 1 and not all(_inside(item, group, group_of) for item in value.consumers()):
                found.add(str(node.name))
    return found


def _inside(node: ir.Node | None, group: str, group_of: Mapping[str, str]) -> bool:
    return node is not None and group_of.get(str(node.name)) == group
