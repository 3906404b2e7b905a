"""Which codes an integer tensor can hold: clamps of producers, followed through operators that move codes.

A proof about an accumulator starts here. Every rule is sound for any input of the model: where nothing better is
known a tensor can hold whatever its element type holds. Only integer tensors have a range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir

from qcompiler.ir import constants
from qcompiler.ir.operators import STANDARD_DOMAINS
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer.gather import WIDTHS

__all__ = ["CodeRanges", "Range", "limits"]

Range: TypeAlias = tuple[int, int]
"""Least and greatest integer."""


class CodeRanges:
    """Ranges of the integer tensors of one model, its subgraphs included.

    A value is looked up through its producers on demand; ranges are kept, so a whole model costs one visit per node.
    """

    def __init__(self) -> None:
        self._known: dict[ir.Value, Range | None] = {}

    def of(self, value: ir.Value | None) -> Range | None:
        """The range of a tensor; ``None`` where it is absent, or holds no integers."""
        if value is None:
            return None
        for item in _unvisited(value, self._known):
            self._known[item] = _within(self._derive(item), item)
        return self._known[value]

    def _derive(self, value: ir.Value) -> Range | None:
        content = constants.array(value)
        if content is not None and content.size and np.issubdtype(content.dtype, np.integer):
            return int(content.min()), int(content.max())
        node = value.producer()
        if node is None:
            return None
        if node.domain == DOMAIN:
            return _OWN.get(node.op_type, _clamped)(node)
        rule = _RULES.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
        return rule(self, node) if rule is not None and value is node.outputs[0] else self._split(node)

    def _split(self, node: ir.Node) -> Range | None:
        return self.of(node.inputs[0]) if node.op_type == "Split" and node.domain in STANDARD_DOMAINS else None

    def union(self, node: ir.Node, indices: Sequence[int]) -> Range | None:
        """The range that covers several inputs; ``None`` where one of them is unknown."""
        found = [self.of(node.inputs[index]) for index in indices if index < len(node.inputs)]
        known = [item for item in found if item is not None]
        if not known or len(known) < len(found):
            return None
        return min(low for low, _ in known), max(high for _, high in known)


def limits(dtype: ir.DataType | None) -> Range | None:
    """What an integer element type holds; ``None`` for other types."""
    if dtype is None or not dtype.is_integer():
        return None
    bits, signed = dtype.bitwidth, dtype.is_signed()
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _unvisited(value: ir.Value, known: dict[ir.Value, Range | None]) -> Iterator[ir.Value]:
    """``value`` behind everything it is made of that has no range yet: producers first, without recursion."""
    stack = [(value, False)]
    while stack:
        item, ready = stack.pop()
        if item in known:
            continue
        producer = item.producer()
        if ready or producer is None or producer.domain == DOMAIN:
            yield item
            continue
        stack.append((item, True))
        stack.extend((source, False) for source in producer.inputs if source is not None and source not in known)


def _within(found: Range | None, value: ir.Value) -> Range | None:
    """A derived range cut to what the element type holds; the type's own where nothing was derived."""
    held = limits(value.dtype)
    if found is None or held is None:
        return held
    low, high = max(found[0], held[0]), min(found[1], held[1])
    return (low, high) if low <= high else held


def _clamped(node: ir.Node) -> Range | None:
    """The clamp of one of our own operators."""
    low, high = node.attributes.get("low"), node.attributes.get("high")
    return None if low is None or high is None else (low.as_int(), high.as_int())


def _looked_up(node: ir.Node) -> Range | None:
    """The entries of a table."""
    table = constants.array(node.inputs[1])
    return None if table is None or not table.size else (int(table.min()), int(table.max()))


def _gathered(node: ir.Node) -> Range | None:
    """The ends of the codes of a table, rescaled as each of its rows is: within the clamp."""
    clamp, bits = _clamped(node), node.attributes.get_int("bits", 0) or 0
    multiplier, shift = (constants.array(value) for value in [*node.inputs[2:4], None, None][:2])
    if clamp is None or multiplier is None or shift is None or multiplier.shape != shift.shape or not shift.size:
        return clamp
    wide, amount = multiplier.astype(np.int64), shift.astype(np.int64)
    if bits not in WIDTHS or wide.min() < 0 or wide.max() >> 31 or amount.min() < 1 or amount.max() > 62:
        return clamp  # legality says so
    ends = (np.array([[-(1 << (bits - 1))], [(1 << (bits - 1)) - 1]]) * wide + (np.int64(1) << (amount - 1))) >> amount
    low, high = np.clip(ends + (node.attributes.get_int("y_zero_point", 0) or 0), *clamp)
    return int(low.min()), int(high.max())


def _moved(known: CodeRanges, node: ir.Node) -> Range | None:
    return known.of(node.inputs[0])


def _joined(known: CodeRanges, node: ir.Node) -> Range | None:
    return known.union(node, range(len(node.inputs)))


def _chosen(known: CodeRanges, node: ir.Node) -> Range | None:
    return known.union(node, (1, 2))


def _scattered(known: CodeRanges, node: ir.Node) -> Range | None:
    return known.union(node, (0, 2)) if "reduction" not in node.attributes else None


def _padded(known: CodeRanges, node: ir.Node) -> Range | None:
    data = known.of(node.inputs[0])
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        return data
    fill = known.of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else (0, 0)
    return None if data is None or fill is None else (min(data[0], fill[0]), max(data[1], fill[1]))


def _relu(known: CodeRanges, node: ir.Node) -> Range | None:
    data = known.of(node.inputs[0])
    return None if data is None else (max(data[0], 0), max(data[1], 0))


def _clip(known: CodeRanges, node: ir.Node) -> Range | None:
    data = known.of(node.inputs[0])
    for index, pick in ((1, max), (2, min)):
        operand = node.inputs[index] if index < len(node.inputs) else None
        bound = known.of(operand)
        if data is None or (operand is not None and bound is None):
            return None
        if bound is not None:
            data = pick(data[0], bound[0]), pick(data[1], bound[1])
    return data


def _extreme(pick: Callable[[list[int]], int]) -> _Rule:
    def rule(known: CodeRanges, node: ir.Node) -> Range | None:
        found = [known.of(value) for value in node.inputs]
        ranges = [item for item in found if item is not None]
        if not ranges or len(ranges) < len(found):
            return None
        return pick([low for low, _ in ranges]), pick([high for _, high in ranges])

    return rule


def _resized(known: CodeRanges, node: ir.Node) -> Range | None:
    """Nearest and linear interpolation stay between the elements; cubic and an extrapolation value need not."""
    settings = {name: node.attributes[name].as_string() for name in _INTERPOLATION if name in node.attributes}
    inside = settings.get("mode", "nearest") in ("nearest", "linear")
    crops = settings.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return known.of(node.inputs[0]) if inside and not crops else None


def _cast(known: CodeRanges, node: ir.Node) -> Range | None:
    """A cast keeps integers that the new type holds; others wrap."""
    data, held = known.of(node.inputs[0]), limits(node.outputs[0].dtype)
    if data is None or held is None:
        return None
    return data if held[0] <= data[0] and data[1] <= held[1] else None


_Rule: TypeAlias = Callable[[CodeRanges, ir.Node], Range | None]

_MOVERS: Final = (
    "Compress", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
    "MaxPool", "ReduceMax", "ReduceMin", "Reshape", "ReverseSequence", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze",
)  # fmt: skip
"""First outputs of these hold nothing but elements of the first input."""

_OWN: Final[dict[str, Callable[[ir.Node], Range | None]]] = {
    "QGather": _gathered,
    "QLogDequantize": _looked_up,
    "QLookup": _looked_up,
}
"""Operators of ours whose constants say more than their clamp."""

_INTERPOLATION: Final = ("mode", "coordinate_transformation_mode")

_RULES: Final[dict[str, _Rule]] = {
    **dict.fromkeys(_MOVERS, _moved),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _joined,
    "Max": _extreme(max),
    "Min": _extreme(min),
    "Pad": _padded,
    "Relu": _relu,
    "Resize": _resized,
    "ScatterElements": _scattered,
    "ScatterND": _scattered,
    "Where": _chosen,
}
