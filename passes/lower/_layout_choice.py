"""Which nodes work with channels last: the choice that moves the fewest codes.

Nodes that must have channels last lie on one side, nodes that must have them first on the other; all others may go to
either. A tensor whose maker is on one side and one of whose readers is on the other costs a Transpose, once, however
many readers there are. The least sum of such costs is a minimum cut (Ford and Fulkerson 1956), found by blocking flows
(Dinitz 1970); of several the one with most nodes on the side of channels last is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Final

import onnx_ir as ir

from qcompiler.passes.lower._layout_turns import Turn

__all__ = ["cheapest", "move_cost"]

_LAST: Final = 0
_FIRST: Final = 1
_NEVER: Final = 1 << 62


def cheapest(graph: ir.Graph, turns: Mapping[ir.Node, Turn], must: Collection[ir.Node]) -> set[ir.Node]:
    """The nodes that work with channels last.

    Args:
        graph: The graph.
        turns: How nodes work with channels last; those not listed cannot.
        must: Those of them that have to.
    """
    places = {node: index for index, node in enumerate(turns, 2)}
    network = _Network()
    for node in must:
        network.connect(_LAST, places[node], _NEVER)
    extra = len(places) + 2
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        maker = _maker(value, turns, places)
        readers = {_reader(use.node, use.idx, turns, places) for use in value.uses()}
        if value.is_graph_output():
            readers.add(_FIRST)
        others = readers - {maker}
        if not others:
            continue
        _at_most_once(network, maker, others, _cost(value, turns), extra)
        extra += 2
    behind = network.cut()
    return {node for node, place in places.items() if place not in behind}


def _cost(value: ir.Value, turns: Mapping[ir.Node, Turn]) -> int:
    node = value.producer()
    return _NEVER if node is not None and node in turns and turns[node].inside else move_cost(value)


def move_cost(value: ir.Value) -> int:
    """Bits that change their place when channels move; 1 where it is only a matter of names.

    Unknown sizes count as 1: they are mostly the batch, which all images share.
    """
    count = value.dtype.bitwidth if value.dtype is not None else 8
    if value.shape is None:
        return count
    sizes = [size if isinstance(size, int) else 1 for size in value.shape]
    static = all(isinstance(size, int) for size in value.shape[1:])
    if static and len(sizes) > 2 and (sizes[1] == 1 or all(size == 1 for size in sizes[2:])):
        return 1
    for size in sizes:
        count *= max(size, 1)
    return count


def _maker(value: ir.Value, turns: Mapping[ir.Node, Turn], places: Mapping[ir.Node, int]) -> int:
    node = value.producer()
    return places[node] if node is not None and node in turns and turns[node].writes else _FIRST


def _reader(node: ir.Node, index: int, turns: Mapping[ir.Node, Turn], places: Mapping[ir.Node, int]) -> int:
    return places[node] if node in turns and index in turns[node].reads else _FIRST


def _at_most_once(network: _Network, maker: int, readers: Collection[int], cost: int, extra: int) -> None:
    """``cost`` if the maker and any reader are on different sides, in either direction."""
    if maker != _FIRST:
        network.connect(maker, extra, cost)
        for reader in readers:
            network.connect(extra, reader, _NEVER)
    network.connect(extra + 1, maker, cost)
    for reader in readers:
        if reader != _FIRST:
            network.connect(reader, extra + 1, _NEVER)


class _Network:
    """Capacities between places; what flows is written as capacity in the other direction."""

    def __init__(self) -> None:
        self._room: dict[int, dict[int, int]] = {_LAST: {}, _FIRST: {}}

    def connect(self, source: int, target: int, capacity: int) -> None:
        ahead, back = self._room.setdefault(source, {}), self._room.setdefault(target, {})
        ahead[target] = min(ahead.get(target, 0) + capacity, _NEVER)
        back.setdefault(source, 0)

    def cut(self) -> set[int]:
        """Fill the network; the places from which the side of channels first can still be reached."""
        while _FIRST in (levels := self._levels()):
            self._fill(levels)
        return self._reaching()

    def _levels(self) -> dict[int, int]:
        """Steps from the side of channels last to every place that it reaches."""
        levels = {_LAST: 0}
        waiting = deque([_LAST])
        while waiting:
            place = waiting.popleft()
            for target, room in self._room[place].items():
                if room > 0 and target not in levels:
                    levels[target] = levels[place] + 1
                    waiting.append(target)
        return levels

    def _fill(self, levels: dict[int, int]) -> None:
        """Let flow through every shortest way until none has room; each place and each step is given up once."""
        steps = {place: list(self._room[place]) for place in levels}
        path = [_LAST]
        while path:
            place = path[-1]
            if place == _FIRST:
                path = self._push(path)
            elif not steps[place]:
                path.pop()
                if path:
                    steps[path[-1]].pop()
            elif self._room[place][steps[place][-1]] > 0 and levels.get(steps[place][-1]) == levels[place] + 1:
                path.append(steps[place][-1])
            else:
                steps[place].pop()

    def _push(self, path: list[int]) -> list[int]:
        """Let as much flow along a path as it has room for; the path up to its first step that is full now."""
        ways = list(pairwise(path))
        amount = min(self._room[source][target] for source, target in ways)
        for source, target in ways:
            self._room[source][target] -= amount
            self._room[target][source] += amount
        full = next(index for index, (source, target) in enumerate(ways) if not self._room[source][target])
        return path[: full + 1]

    def _reaching(self) -> set[int]:
        found, waiting = {_FIRST}, deque([_FIRST])
        while waiting:
            place = waiting.popleft()
            for source in self._room[place]:
                if source not in found and self._room[source].get(place, 0) > 0:
                    found.add(source)
                    waiting.append(source)
        return found
