"""What a node asks of a machine: its kind, its format, its multiply-accumulates and the bytes it moves.

Costs are measured and predicted by these: equal kind, format and shape is the same work, whatever the node is called;
equal kind and format is work of the same sort, whose cost follows from multiply-accumulates and bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import onnx_ir as ir

from qcompiler.analysis.accumulators import family
from qcompiler.analysis.work import macs
from qcompiler.ir.constants import is_constant
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.operators import ROW_LOOKUPS, TABLE_INPUT, looks_up_rows

__all__ = ["Workload", "bind_dimensions", "distinct", "weight_elements", "weight_index", "workload", "workloads"]

_UNTIMED: Final = frozenset(
    {
        "a_zero_point", "b_zero_point", "x_zero_point", "y_zero_point", "to", "low", "high", "bits", "weight_shape",
        "epsilon", "left", "right", "root_shift",
    }
)  # fmt: skip
"""Attributes that change what is computed, not how long it takes."""

_WEIGHTED: Final = ("QConv", "QConvChannelsLast", "QConvTranspose", "QGemm", "QMatMulWeightOnly")
_STORED: Final = 1
"""Which input of ours is packed, where one is."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The work of one node.

    Attributes:
        kind: Operator without the endings of its variants; of a convolution also which sort: ``QConv/pointwise``.
        format: Bits of weights and activations, ``w4a8`` or ``a8``; ``float`` for nodes that compute in float.
        shape: Shapes of what it reads and the attributes that matter for its speed, as text.
        macs: Multiply-accumulates.
        bytes: Bytes read and written, constants included.
    """

    kind: str
    format: str
    shape: str
    macs: int
    bytes: int


def workloads(model: ir.Model) -> Iterator[tuple[ir.Node, Workload]]:
    """Nodes of the main graph that run, with their work; constants and nodes of unknown shape are left out."""
    for node in model.graph:
        if (found := workload(node)) is not None:
            yield node, found


def workload(node: ir.Node) -> Workload | None:
    """The work of one node; ``None`` where it is a constant or a shape is not known."""
    if node.op_type == "Constant" or not node.outputs or (node.inputs and all(map(_folded, node.inputs))):
        return None
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    sizes = [_bytes(value) for value in values]
    if any(size is None for size in sizes):
        return None
    total = sum(size or 0 for size in sizes)
    shapes = " ".join(_operand(node, index) for index in range(len(node.inputs)))
    attributes = "".join(
        f" {name}={_text(attribute.value)}"
        for name, attribute in sorted(node.attributes.items())
        if name not in _UNTIMED and isinstance(attribute.value, int | float | str | list | tuple)
    )
    return Workload(_kind(node), _format(node), shapes + attributes, macs(node), total - _rows_left_out(node))


def bind_dimensions(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give the inputs of a model fixed shapes and infer all others again.

    Args:
        model: The model, which is changed.
        shapes: Shape by input name; inputs that are not named keep theirs.
    """
    from qcompiler.ir.shapes import infer

    sizes: dict[str, int] = {}
    for value in model.graph.inputs:
        given = shapes.get(str(value.name))
        if given is None or value.shape is None:
            continue
        named = ((old, new) for old, new in zip(value.shape, given, strict=False) if not isinstance(old, int))
        sizes |= {str(old.value): new for old, new in named if old.value is not None}
        value.shape = ir.Shape(given)
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None and any(not isinstance(item, int) for item in value.shape):
                value.shape = ir.Shape([_bound(item, sizes) for item in value.shape])
    infer(model)


def weight_index(node: ir.Node) -> int | None:
    """Which input of a node of ours is its weight; ``None`` where it has none."""
    return 1 if node.domain == DOMAIN and family(node.op_type) in _WEIGHTED and len(node.inputs) > 1 else None


def weight_elements(node: ir.Node) -> int | None:
    """How many weights a node of ours has; ``None`` where it has none."""
    index = weight_index(node)
    if index is None:
        return None
    if (logical := node.attributes.get("weight_shape")) is not None:
        return math.prod(logical.as_ints())
    value = node.inputs[index]
    sizes = () if value is None or value.shape is None else tuple(value.shape)
    return math.prod(size for size in sizes if isinstance(size, int)) if sizes else None


def _bound(item: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | None:
    return item if isinstance(item, int) else None if item.value is None else sizes.get(str(item.value))


def _folded(value: ir.Value | None) -> bool:
    return value is None or is_constant(value)


def _bytes(value: ir.Value) -> int | None:
    if value.shape is None or value.dtype is None or any(not isinstance(item, int) for item in value.shape):
        return None
    return math.ceil(math.prod(item for item in value.shape if isinstance(item, int)) * value.dtype.itemsize)


def _rows_left_out(node: ir.Node) -> int:
    """Bytes of rows of constants that no index asks for, at the least."""
    if node.domain == DOMAIN and node.op_type in ROW_LOOKUPS:
        indices, *held = node.inputs
        rows = node.attributes["weight_shape"].as_ints()[0]
    elif looks_up_rows(node) and is_constant(node.inputs[TABLE_INPUT]):
        indices, held = node.inputs[1], [node.inputs[TABLE_INPUT]]
        rows = _size(held[0])[0] if _size(held[0]) else 0
    else:
        return 0
    asked = math.prod(_size(indices))
    return sum(_bytes(value) or 0 for value in held if value is not None) * max(rows - asked, 0) // max(rows, 1)


def _size(value: ir.Value | None) -> list[int]:
    """The sizes that are known."""
    return [] if value is None or value.shape is None else [item for item in value.shape if isinstance(item, int)]


def _operand(node: ir.Node, index: int) -> str:
    """Type and shape of an input; of what a constant scalar or a channel's parameter holds, nothing."""
    value = node.inputs[index]
    if value is None or value.shape is None or value.dtype is None:
        return "-"
    if index == _STORED and (logical := node.attributes.get("weight_shape")) is not None:
        return f"weight{_text(_rows_last(node, logical.as_ints()))}"
    name = "weight" if index == weight_index(node) else value.dtype.name.lower()
    return f"{name}{_text(list(value.shape))}"


def _rows_last(node: ir.Node, shape: Sequence[int]) -> list[int]:
    """A packed matrix has its rows first; as text it is what the plain one is, so that widths can be compared."""
    return list(reversed(shape)) if family(node.op_type) == "QGemm" else list(shape)


def _text(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _kind(node: ir.Node) -> str:
    name = family(node.op_type) if node.domain == DOMAIN else node.op_type
    if node.domain not in ("", DOMAIN):
        return f"{node.domain}:{name}"
    return f"{name}/{_sort_of_convolution(node)}" if "Conv" in name and len(node.inputs) > 1 else name


def _sort_of_convolution(node: ir.Node) -> str:
    logical = node.attributes.get("weight_shape")
    weight = node.inputs[1]
    shape = logical.as_ints() if logical is not None else () if weight is None or weight.shape is None else weight.shape
    group = node.attributes.get("group")
    if group is not None and group.as_int() > 1:
        return "depthwise" if len(shape) > 1 and shape[1] == 1 else "grouped"
    return "pointwise" if all(size == 1 for size in list(shape)[2:]) else "spatial"


def _format(node: ir.Node) -> str:
    if node.domain != DOMAIN:
        types = {value.dtype for value in (*node.inputs[:1], *node.outputs) if value is not None}
        return "float" if all(dtype is None or dtype.is_floating_point() for dtype in types) else "codes"
    looks_up = node.op_type in ROW_LOOKUPS
    activation = _bits(node.outputs[0] if looks_up else node.inputs[0])
    if weight_index(node) is None and not looks_up:
        return f"a{activation}"
    bits = node.attributes.get("bits")
    return f"w{bits.as_int() if bits is not None else 8}a{activation}"


def _bits(value: ir.Value | None) -> str:
    """``8`` or ``16`` of codes, ``f32`` of real numbers."""
    if value is None or value.dtype is None:
        return "?"
    return f"{'f' if value.dtype.is_floating_point() else ''}{value.dtype.bitwidth}"


def distinct(items: Iterable[tuple[ir.Node, Workload]]) -> list[tuple[ir.Node, Workload]]:
    """The first node of every kind, format and shape."""
    found: dict[tuple[str, str, str], tuple[ir.Node, Workload]] = {}
    for node, work in items:
        found.setdefault((work.kind, work.format, work.shape), (node, work))
    return list(found.values())
