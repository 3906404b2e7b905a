"""compose-tables: a chain of functions of one 8-bit code is one table.

Between two tensors of codes there may be several elementwise operators that depend on nothing else: HardSwish written
as Add, Clip and Mul; ``x * sigmoid(x)``; a Softplus, a Tanh and a product. An 8-bit code has 256 values, so whatever
integers such a chain computes can be computed for all of them when the model is compiled. The table holds exactly what
the chain gives, every rounding and saturation included: no output of the model changes by a single bit.

A chain ends in int8 or int16, begins at one int8 tensor, and nothing outside reads what lies between. Chains of
rescales alone are left: they are one multiplication, and other passes fold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array
from qcompiler.ir.operators import STANDARD_DOMAINS
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant.annotations import annotate, annotation
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer.tables import ENTRIES

__all__ = ["ComposeTables"]

_ELEMENTWISE: Final = ("QAdd", "QLookup", "QMul", "QSub", "Requantize")
"""Operators of ours that compute each element from the elements beside it, by the first letters of their names."""

_CODES: Final = frozenset({ir.DataType.INT8, ir.DataType.INT16})
_LONGEST: Final = 24
"""Nodes of a chain that is looked at."""

_STANDARD: Final[Mapping[str, Callable[..., Any]]] = {
    "Add": np.add,
    "Cast": lambda x: x,
    "Clip": lambda x, low=None, high=None: np.clip(x, low, high),
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Relu": lambda x: np.maximum(x, 0),
    "Sub": np.subtract,
}


@dataclass(frozen=True)
class ComposeTables(Pass):
    """Replace chains of elementwise integer operators on one int8 tensor by one QLookup, bit for bit."""

    name: ClassVar[str] = "compose-tables"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.LOWERED})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Visit results from the last to the first, so that the longest chain is found."""
        if ctx.target is not None and not ctx.target.integer.table_entries:
            return
        for node in reversed(list(model.graph)):
            if node.graph is None or not _is_elementwise(node) or node.outputs[0].dtype not in _CODES:
                continue
            chain = _chain(node)
            if chain is not None:
                _compose(*chain, node.outputs[0], ctx)
        catalogue.attach(model)


def _is_elementwise(node: ir.Node) -> bool:
    """Whether a node computes elements of its one result from elements of its inputs and from single numbers."""
    ours = node.domain == DOMAIN and node.op_type.startswith(_ELEMENTWISE)
    if not ours and (node.domain not in STANDARD_DOMAINS or node.op_type not in _STANDARD):
        return False
    table = node.op_type.startswith("QLookup")
    for index, value in enumerate(node.inputs):
        content = array(value)
        if content is not None and not (table and index == 1) and content.size != 1:
            return False
    return node.outputs[0].dtype is not None and node.outputs[0].dtype.is_integer()


def _chain(last: ir.Node) -> tuple[ir.Value, list[ir.Node]] | None:
    """The int8 tensor farthest back on which alone a result depends, and the nodes between, last first."""
    position = {node: index for index, node in enumerate(last.graph)} if last.graph is not None else {}
    nodes = [last]
    border = _read(last)
    found: tuple[ir.Value, list[ir.Node]] | None = None
    while len(nodes) <= _LONGEST:
        if len(border) == 1 and border[0].dtype is ir.DataType.INT8 and _is_worth(nodes, border[0]):
            found = border[0], list(nodes)
        producers = [value.producer() for value in border]
        inner = [node for node in producers if node is not None and node in position]
        if len(inner) < len(border) or not inner:
            return found
        latest = max(inner, key=position.__getitem__)
        if not _is_elementwise(latest) or not _is_inside(latest.outputs[0], nodes):
            return found
        nodes.append(latest)
        rest = [value for value in border if value is not latest.outputs[0]]
        border = list(dict.fromkeys([*rest, *_read(latest)]))
    return found


def _read(node: ir.Node) -> list[ir.Value]:
    return list(dict.fromkeys(value for value in node.inputs if value is not None and array(value) is None))


def _is_inside(value: ir.Value, nodes: list[ir.Node]) -> bool:
    return not value.is_graph_output() and all(use.node in nodes for use in value.uses())


def _is_worth(nodes: list[ir.Node], source: ir.Value) -> bool:
    """More than rescales in a row, and of the same shape as what it begins with."""
    if len(nodes) < 2 or all(node.op_type.startswith("Requantize") for node in nodes):
        return False
    rank = len(source.shape) if source.shape is not None else 0
    shapes = [
        content.ndim
        for node in nodes
        for index, value in enumerate(node.inputs)
        if (content := array(value)) is not None and not (node.op_type.startswith("QLookup") and index == 1)
    ]
    return max(shapes, default=0) <= rank


def _compose(source: ir.Value, nodes: list[ir.Node], result: ir.Value, ctx: Context) -> None:
    codes = np.arange(-ENTRIES // 2, ENTRIES // 2).astype(np.int8)
    known: dict[ir.Value, NDArray[Any]] = {source: codes}
    for node in reversed(nodes):
        operands = [_operand(value, known) for value in node.inputs]
        known[node.outputs[0]] = _evaluated(node, operands)
    table = ctx.edit.constant(f"{result.name}_table", known[result])
    lookup = ctx.edit.insert(
        "QLookup", [source, table], domain=DOMAIN, before=nodes[0], name=f"{result.name}_QLookup"
    ).outputs[0]
    lookup.type, lookup.shape = result.type, result.shape
    if (meaning := annotation(result)) is not None:
        annotate(lookup, meaning)
    ctx.edit.replace_uses(result, lookup)
    ctx.edit.remove_unused([result])
    ctx.note(f"{len(nodes)} operators on '{source.name}' are one table")


def _operand(value: ir.Value | None, known: Mapping[ir.Value, NDArray[Any]]) -> NDArray[Any] | None:
    if value is None:
        return None
    content = array(value)
    if content is None:
        return known[value]
    return content.reshape(()) if content.size == 1 else content


def _evaluated(node: ir.Node, operands: list[NDArray[Any] | None]) -> NDArray[Any]:
    """What a node gives for all codes.

    Raises:
        OverflowError: A standard operator leaves its element type, where runtimes would wrap.
    """
    if node.domain == DOMAIN:
        attributes = {name: item.value for name, item in node.attributes.items()}
        found: NDArray[Any] = catalogue.operators()[node.op_type].specification(*operands, **attributes)
        return np.broadcast_to(found, (ENTRIES,))
    wide = [None if item is None else item.astype(np.int64) for item in operands]
    exact = np.broadcast_to(_STANDARD[node.op_type](*wide), (ENTRIES,))
    dtype = node.outputs[0].dtype
    stored = exact.astype(dtype.numpy() if dtype is not None else np.int64)
    if (stored != exact).any():
        raise OverflowError(f"{node.name} ({node.op_type}) leaves {dtype}")
    return stored
