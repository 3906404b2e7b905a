"""Transposes of codes where nodes of one layout read tensors of the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir

from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.passes.lower._layout_axes import to_first, to_last, turned
from qcompiler.passes.lower._layout_choice import move_cost
from qcompiler.passes.lower._layout_turns import Turn

__all__ = ["Borders"]

_NAMES_ONLY: Final = 1
_Use: TypeAlias = tuple[ir.Node, int]


class Borders:
    """Puts Transposes between nodes that work with channels last and all others.

    Args:
        work: The nodes that work with channels last, and how; nothing of them has changed yet.
        edit: The mutation interface.
    """

    def __init__(self, work: Mapping[ir.Node, Turn], edit: Edit) -> None:
        self._work = work
        self._edit = edit

    def place(self, graph: ir.Graph) -> None:
        """One Transpose for every tensor that is read in another layout than it is written in."""
        for value in (*graph.inputs, *(output for node in list(graph) for output in node.outputs)):
            maker = value.producer()
            is_last = maker is not None and maker in self._work and self._work[maker].writes
            readers = [(use.node, use.idx) for use in value.uses()]
            strangers = [use for use in readers if self._wants_last(use) is not is_last]
            if strangers or (is_last and value.is_graph_output()):
                self._convert(graph, value, strangers, is_last=is_last)

    def _wants_last(self, use: _Use) -> bool:
        turn = self._work.get(use[0])
        return turn is not None and use[1] in turn.reads

    def _convert(self, graph: ir.Graph, value: ir.Value, readers: Iterable[_Use], *, is_last: bool) -> None:
        """Let ``readers`` read the tensor in the other layout; the output of the graph has channels first."""
        converted = self._transposed(graph, value, is_last=is_last)
        for node, index in readers:
            self._edit.set_input(node, index, converted)
        if value.is_graph_output() and is_last:
            others = [(use.node, use.idx) for use in value.uses()]
            self._edit.replace_uses(value, converted)
            for node, index in others:
                self._edit.set_input(node, index, value)

    def _transposed(self, graph: ir.Graph, value: ir.Value, *, is_last: bool) -> ir.Value:
        """The node; where no code changes its place, a Reshape that costs nothing. Shapes are those before turning."""
        sizes = list(value.shape) if value.shape is not None else []
        rank = len(sizes)
        after = value.producer()
        before = next(iter(graph)) if after is None else None
        name = f"{value.name}_{'channels_first' if is_last else 'channels_last'}"
        if move_cost(value) == _NAMES_ONLY:
            ordered = sizes if is_last else turned(sizes)
            wanted = self._edit.constant(f"{name}_sizes", np.array([0, *ordered[1:]], np.int64))
            op_type, inputs, attributes = "Reshape", [value, wanted], {}
        else:
            op_type, inputs, attributes = "Transpose", [value], {"perm": to_first(rank) if is_last else to_last(rank)}
        result = self._edit.insert(
            op_type, inputs, attributes=attributes, before=before, after=after, name=name, output_name=f"{name}_codes"
        ).outputs[0]
        result.type = value.type
        result.shape = ir.Shape(sizes if is_last else turned(sizes))
        return result

    def merge(self, graph: ir.Graph) -> None:
        """Two Transposes in a row are one, or none."""
        for node in list(graph):
            before = node.inputs[0].producer() if has_type(node, "Transpose") and node.inputs[0] is not None else None
            if node.graph is None or before is None or not has_type(before, "Transpose"):
                continue
            inner, outer = _order(before), _order(node)
            if inner is None or outer is None:
                continue
            order = [inner[axis] for axis in outer]
            source, old = before.inputs[0], node.inputs[0]
            if source is None or old is None:
                continue
            if order == sorted(order):
                self._edit.replace_uses(node.outputs[0], source)
                self._edit.remove_unused([node.outputs[0]])
            else:
                self._edit.set_attribute(node, "perm", order)
                self._edit.set_input(node, 0, source)
                self._edit.remove_unused([old])


def _order(node: ir.Node) -> list[int] | None:
    found = node.attributes.get("perm")
    return None if found is None else list(found.as_ints())
