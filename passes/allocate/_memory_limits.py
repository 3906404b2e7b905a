"""Peak memory as constraints that are linear in the choice: one per node that may be the peak.

The bytes of a buffer follow the widest of its readers, seen through nodes that are in no group. The sum over those
groups of what each would add to the narrowest format is that maximum where one group reads the buffer, and more where
several do. Where a profile widens sums that a wide tensor enters, a buffer may become wide for a group that does not
read it: the peak of a plan is what ``plan_costs`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from qcompiler.analysis.memory_plan import Step

__all__ = ["MemoryLimit", "memory_limits"]

BufferReaders: TypeAlias = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """Live bytes at one node.

    Attributes:
        node: Its name.
        fixed: Bytes with every buffer in its narrowest format.
        more: Bytes that a format of a group adds.
    """

    node: str
    fixed: int
    more: Mapping[tuple[str, str], int]


def memory_limits(
    groups: Mapping[str, Sequence[str]], runs: Mapping[str, Sequence[Step]], readers: Sequence[BufferReaders]
) -> list[MemoryLimit]:
    """Constraints on the steps that some plan may have as its peak.

    Args:
        groups: Names of nodes by group.
        runs: By format, live buffers at each node where all groups have it.
        readers: Grouped nodes that read each buffer, at once or through others, in each of those runs.
    """
    group_of = {name: group for group, names in groups.items() for name in names}
    limits = []
    for steps in zip(*runs.values(), strict=True):
        forms = dict(zip(runs, steps, strict=True))
        names = dict.fromkeys(name for step in steps for name in step.live)
        least = {name: min(step.live.get(name, 0) for step in steps) for name in names}
        more: dict[tuple[str, str], int] = {}
        for name in names:
            for form, step in forms.items():
                added = step.live.get(name, 0) - least[name]
                readings = {group_of[node] for run in readers for node in run.get(name, ()) if node in group_of}
                for group in readings if added else ():
                    more[group, form] = more.get((group, form), 0) + added
        limits.append(MemoryLimit(steps[0].node, sum(least.values()), more))
    return _binding(limits)


def _binding(limits: Sequence[MemoryLimit]) -> list[MemoryLimit]:
    """Constraints that may bind: every plan has the greatest fixed part at least."""
    floor = max((limit.fixed for limit in limits), default=0)
    kept = [limit for limit in limits if limit.fixed + sum(_most(limit.more).values()) > floor]
    return kept or [limit for limit in limits if limit.fixed == floor][:1]


def _most(more: Mapping[tuple[str, str], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (group, _), added in more.items():
        found[group] = max(found.get(group, 0), added)
    return found
