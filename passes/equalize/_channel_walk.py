"""Which channels of a graph can be multiplied by a factor, or moved by a shift, without changing what it computes.

Every output channel of a matrix product and of a norm gets a label. Labels are followed in graph order through whatever
moves channels (``_layout``), multiplies them by something that is not labelled, or averages them (``softmax(S) V`` per
channel of V), to where they are taken in: the inputs of a matrix product, or a product of two labelled tensors
(``Q K^T``), whose factors must be the inverse of each other. Addition ties labels to each other. Whatever else reads a
label makes it stuck, with the reason.

A shift goes less far: through movers, through averages whose weights sum to 1, into a matrix product with a bias; keys
may be shifted by anything, because softmax takes no notice of what is added to all scores of a query. Behind an Add it
is taken back by the bias of the other operand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.ir import constants, patterns
from qcompiler.ir.uses import use_count
from qcompiler.passes.equalize._channels import Balance, Channels, Meeting, Reader, Source
from qcompiler.passes.equalize._layout import Layout, along
from qcompiler.passes.equalize._moves import MOVERS, moved
from qcompiler.passes.equalize._producers import Linear, Norm, linear, norm

__all__ = ["find"]

_HOMOGENEOUS: Final = ("Relu", "LeakyRelu", "PRelu")


def find(graph: ir.Graph) -> Channels:
    """Follow all labels of a graph.

    A product of two labelled tensors lets factors of one of them pass only if the other is not multiplied at all. So
    labels are followed twice: what is stuck for other reasons is known the second time, and stays so.
    """
    known: dict[ir.Node, dict[int, str]] | None = None
    for _ in range(2):
        walk = _Walk(Channels(), known)
        for node in graph:
            walk.visit(node)
        found = walk.found
        for label in found.union.contradictions():
            found.stuck.setdefault(label, "a channel would meet itself")
        reasons = {found.union.find(label)[0]: reason for label, reason in found.stuck.items()}
        for label in range(walk.count):
            if (root := found.union.find(label)[0]) in reasons:
                found.stuck.setdefault(label, reasons[root])
        known = {source.maker.node: source.among(found.stuck) for source in found.sources}
    return found


class _Walk:
    """One pass over the nodes in graph order.

    Args:
        found: What it fills.
        known: By the node that makes them, which outputs are stuck and why; ``None`` where that is not known yet.
    """

    def __init__(self, found: Channels, known: Mapping[ir.Node, Mapping[int, str]] | None) -> None:
        self.found = found
        self._known = known
        self._held: set[int] = set()
        self.count = 0
        self._places: dict[ir.Node, Linear | Norm] = {}
        self._made: dict[ir.Value, Linear | Norm] = {}
        self._visits: dict[str, Callable[[ir.Node, list[ir.Value]], None]] = {
            **dict.fromkeys(MOVERS, self._move),
            **dict.fromkeys(_HOMOGENEOUS, self._homogeneous),
            **dict.fromkeys(("Mul", "Div"), self._product),
            **dict.fromkeys(("Add", "Sub"), self._sum),
            **dict.fromkeys(("MatMul", "Gemm"), self._matrix_product),
        }

    def visit(self, node: ir.Node) -> None:
        """Follow labels through one node."""
        if patterns.has_type(node, "Shape", "Size"):
            return
        layouts = self.found.layouts
        labelled = list(dict.fromkeys(value for value in node.inputs if value in layouts and value is not None))
        visit = self._visits.get(node.op_type) if not node.domain else None
        if visit is not None and (labelled or visit == self._matrix_product):
            visit(node, labelled)
        else:
            for value in labelled:
                self.found.stop(value, f"{node.name} ({node.op_type}) lets no factor pass")
        if not any(value in layouts for value in node.outputs):
            self._begin(node)
        for value in node.outputs:
            if value in layouts and any(use.node.graph is not node.graph for use in value.uses()):
                self.found.stop(value, "a body reads its result")
            if value in layouts and value.is_graph_output():
                self.found.stop(value, "its result is an output of the model")

    # -- where labels begin --------------------------------------------------------------------------------

    def _begin(self, node: ir.Node) -> None:
        """Give labels to what a matrix product or a norm makes."""
        maker = self._places.get(node) or norm(node)
        if isinstance(maker, str):
            self.found.refused.append((node, maker))
        if maker is None or isinstance(maker, str):
            return
        value = node.outputs[0]
        rank = patterns.rank(value)
        if rank is None:
            self.found.refused.append((node, "the rank of its result is not known"))
            return
        source = Source(maker, self.count)
        self.count += source.count
        self.found.union.grow(self.count)
        self.found.sources.append(source)
        for index, reason in (self._known or {}).get(maker.node, {}).items():
            self._held.add(source.first + index)
            self.found.stuck[source.first + index] = reason
        self._made[maker.result] = maker
        self._set(value, along(rank, rank - 1, source.first, source.count), shifts=True)
        place = maker.bias_node if isinstance(maker, Linear) else maker.shift_node
        if place is None:
            self.found.hold(source.labels.tolist(), "it has no bias that could take a shift")
        elif place is not node:
            self._places[place] = maker

    def _set(self, value: ir.Value, layout: Layout, *, shifts: bool) -> None:
        self.found.layouts[value] = layout
        if shifts:
            self.found.shifted.add(value)

    # -- what labels pass ----------------------------------------------------------------------------------

    def _move(self, node: ir.Node, labelled: list[ir.Value]) -> None:
        results = moved(node, self.found.layouts)
        if isinstance(results, str):
            for value in labelled:
                self.found.stop(value, f"{node.name} ({node.op_type}): {results}")
            return
        shifts = all(value in self.found.shifted for value in labelled)
        if not shifts:
            for value in labelled:
                self.found.stop(value, f"{node.name} ({node.op_type}) joins it with what is not shifted", scale=False)
        for value, layout in zip(node.outputs, results, strict=True):
            self._set(value, layout, shifts=shifts)

    def _homogeneous(self, node: ir.Node, labelled: list[ir.Value]) -> None:
        source = labelled[0]
        if node.inputs[0] is not source:
            self.found.stop(source, f"{node.name} ({node.op_type}) reads it as a slope")
            return
        self.found.stop(source, f"{node.name} ({node.op_type}) is not linear", scale=False)
        self._set(node.outputs[0], self.found.layouts[source], shifts=False)

    def _product(self, node: ir.Node, labelled: list[ir.Value]) -> None:
        free = [value for value in labelled if not self._held.issuperset(self.found.layouts[value].all().tolist())]
        for value in labelled:
            stays = f"{node.name} ({node.op_type}) multiplies it by what is not shifted"
            self.found.stop(value, stays, scale=False)
        if len(free) != 1:
            if len(free) > 1 and self._known is not None:
                for value in free:
                    self.found.stop(value, f"{node.name} ({node.op_type}) multiplies two tensors of free channels")
            return
        value = free[0]
        rank = patterns.rank(node.outputs[0])
        if rank is None or patterns.reads_twice(node) or (node.op_type == "Div" and node.inputs[0] is not value):
            self.found.stop(value, f"{node.name} ({node.op_type}) lets no factor pass")
            return
        self._set(node.outputs[0], self.found.layouts[value].broadcast(rank), shifts=False)

    def _sum(self, node: ir.Node, labelled: list[ir.Value]) -> None:
        """The bias of a layer belongs to it; two labelled tensors are tied."""
        maker = self._places.get(node)
        if maker is not None:
            self._set(node.outputs[0], self.found.layouts[labelled[0]], shifts=True)
            return
        rank = patterns.rank(node.outputs[0])
        layouts = [None if value is None else self.found.layouts.get(value) for value in node.inputs]
        first, second = layouts
        if first is None or second is None or rank is None or patterns.reads_twice(node):
            for value in labelled:
                self.found.stop(value, f"{node.name} ({node.op_type}) adds what is not multiplied")
            return
        pair = [layout.broadcast(rank) for layout in (first, second)]
        if not self._tie(pair[0], pair[1]):
            for value in labelled:
                self.found.stop(value, f"{node.name} ({node.op_type}) adds channels that lie differently")
            return
        self._balance(node)
        self._set(node.outputs[0], pair[0], shifts=False)

    def _tie(self, one: Layout, two: Layout) -> bool:
        axes = [axis for axis in range(len(one.parts)) if one.depends(axis) or two.depends(axis)]
        left, right = one.labels(*axes), two.labels(*axes)
        if any(a != b and 1 not in (a, b) for a, b in zip(left.shape, right.shape, strict=True)):
            return False
        left, right = np.broadcast_arrays(left, right)
        self.found.union.tie(left.ravel(), right.ravel(), inverse=False)
        return True

    def _balance(self, node: ir.Node) -> None:
        """Let the bias of one operand take back the shift of the other."""
        for value, other in (node.inputs, node.inputs[::-1]):
            if value is None or other is None or value not in self.found.shifted:
                continue
            maker = self._made.get(other)
            layout = self.found.layouts[value]
            alone = isinstance(maker, Linear) and maker.bias_node is not None and use_count(other) == 1
            channels = layout.labels(-1)
            whole = not layout.depends(*range(len(layout.parts) - 1))
            from_norm = isinstance(self._made.get(value), Norm)
            if node.op_type == "Add" and isinstance(maker, Linear) and alone and whole and from_norm:
                self.found.balances.append(Balance(maker, channels))
                self.found.hold(self.found.layouts[other].all().tolist(), "its bias takes back another shift")
                continue
            self.found.stop(value, f"{node.name} ({node.op_type}) adds what is not shifted", scale=False)

    # -- where labels end ----------------------------------------------------------------------------------

    def _matrix_product(self, node: ir.Node, labelled: list[ir.Value]) -> None:
        if len(node.inputs) > 1 and constants.is_constant(node.inputs[1]):
            self._layer(node, labelled)
            return
        layouts = [None if value is None else self.found.layouts.get(value) for value in node.inputs[:2]]
        left, right = layouts
        if node.op_type == "MatMul" and left is not None and right is not None and self._meet(node, left, right):
            return
        if node.op_type == "MatMul" and left is None and right is not None and self._average(node, right):
            return
        for value in labelled:
            self.found.stop(value, f"{node.name} ({node.op_type}) sums over it, or multiplies it by what varies")

    def _layer(self, node: ir.Node, labelled: list[ir.Value]) -> None:
        layer = linear(node)
        if isinstance(layer, str):
            self.found.refused.append((node, layer))
        else:
            self._places[node] = layer
        for value in labelled:
            layout = self.found.layouts[value]
            rows = layout.labels(-1)
            whole = isinstance(layer, Linear) and rows.size == layer.size[0] and node.inputs[0] is value
            if isinstance(layer, str) or not whole or layout.depends(*range(len(layout.parts) - 1)):
                reason = layer if isinstance(layer, str) else "it reads channels on other axes"
                self.found.stop(value, f"{node.name} ({node.op_type}) behind it: {reason}")
                continue
            shifted = value in self.found.shifted
            self.found.readers.append(Reader(layer, rows, shifted))
            if shifted and layer.bias_node is None:
                self.found.stop(value, f"{node.name} ({node.op_type}) behind it has no bias", scale=False)

    def _meet(self, node: ir.Node, left: Layout, right: Layout) -> bool:
        """Queries meet keys: the factors of one must be the inverse of those of the other."""
        rank = max(len(left.parts), len(right.parts))
        left, right = left.broadcast(rank), right.broadcast(rank)
        if rank < 2 or left.depends(-2) or right.depends(-1):
            return False
        batch = list(range(rank - 2))
        one, two = left.labels(*batch, -1), right.labels(*batch, -2)
        if any(a != b and 1 not in (a, b) for a, b in zip(one.shape, two.shape, strict=True)):
            return False
        one, two = np.broadcast_arrays(one, two)
        self.found.union.tie(one.ravel(), two.ravel(), inverse=True)
        self.found.meetings.append(Meeting(node, one, two))
        query, key = node.inputs[:2]
        if query in self.found.shifted:
            self.found.hold(left.all().tolist(), f"{node.name} multiplies it by keys that vary")
        if key in self.found.shifted and not _softmax_behind(node.outputs[0]):
            self.found.hold(right.all().tolist(), f"no Softmax behind {node.name} takes a shift away")
        return True

    def _average(self, node: ir.Node, right: Layout) -> bool:
        """Attention: every channel of the values is averaged by itself."""
        rank = patterns.rank(node.outputs[0])
        if rank is None or len(right.parts) < 2 or right.depends(-2):
            return False
        weights, values = node.inputs[:2]
        softmax = patterns.producer(weights, "Softmax")
        sums = softmax is not None and _last_axis(softmax)
        if values is not None and values in self.found.shifted and not sums:
            self.found.hold(right.all().tolist(), f"the weights of {node.name} do not sum to 1")
        layout = right.broadcast(rank)
        self.found.averages.append((node, layout))
        self._set(node.outputs[0], layout, shifts=sums and values in self.found.shifted)
        return True


def _last_axis(softmax: ir.Node) -> bool:
    rank = patterns.rank(softmax.inputs[0])
    return patterns.integer(softmax, "axis", -1) in (-1, None if rank is None else rank - 1)


def _softmax_behind(value: ir.Value) -> bool:
    """Whether scores go through scaling and masking alone to a Softmax over the keys."""
    for _ in range(6):
        node = patterns.only_consumer(value)
        if node is None:
            return False
        if patterns.has_type(node, "Softmax"):
            return _last_axis(node)
        scaled = patterns.has_type(node, "Mul", "Div") and patterns.scalar_operand(node) is not None
        if not scaled and not patterns.has_type(node, "Add"):
            return False
        value = node.outputs[0]
    return False
