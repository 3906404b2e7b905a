"""finalize: the last pass; what remains is what the file should say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

import onnx
import onnx_ir as ir

from qcompiler.errors import PassError
from qcompiler.ir import shapes
from qcompiler.ir.operators import schema
from qcompiler.passes.finalize._moved_codes import FIRST_OPSET, pair_moved_codes
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.version import version

__all__ = ["Finalize"]

_OPSET: Final = 20
_HIGHEST_OPSET: Final = 25
_IR: Final = 9
_IR_FROM_OPSET_21: Final = 10
_IR_OF_METADATA: Final = 10
"""First IR version in which values carry metadata: what codes mean is written there."""
_TYPES_FROM: Final = {
    ir.DataType.INT4: (21, 10),
    ir.DataType.UINT4: (21, 10),
    ir.DataType.INT2: (25, 13),
    ir.DataType.UINT2: (25, 13),
    ir.DataType.FLOAT4E2M1: (23, 11),
    ir.DataType.FLOAT8E8M0: (24, 12),
}
"""Lowest opset and IR version that know an element type; all others are known to opset 20 and IR 9.

Opset 20 is more than a courtesy to older runtimes: from 21 on ONNX Runtime refuses some models whose float nodes read
signed 8-bit codes, unless they get more nodes (``_moved_codes.py``).
"""


@dataclass(frozen=True)
class Finalize(Pass):
    """Lowest opset and IR version that suffice, our stamp, nothing unused: what any runtime can read, it should.

    Where opset 21 is needed, nodes that move int8 codes as real numbers get a Q/DQ pair behind them.

    Unused are initializers, functions, operator sets and documentation strings.
    """

    name: ClassVar[str] = "finalize"
    invalidates: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL})  # opset 20 may do
    preserves: ClassVar[Preserves] = Preserves.EXACT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        _remove_unused(model, ctx)
        _set_versions(model, ctx)
        if model.opset_imports.get("", _OPSET) >= FIRST_OPSET:
            pair_moved_codes(model.graph, ctx.edit)
        if model.functions and shapes.name_dimensions(model):
            ctx.edit.touch()
        if model.doc_string or model.graph.doc_string:
            model.doc_string = model.graph.doc_string = None
            ctx.edit.touch()
        for node in model.graph.all_nodes():
            node.doc_string = None
        model.producer_name, model.producer_version = "qcompiler", version()


def _remove_unused(model: ir.Model, ctx: Context) -> None:
    for value in [value for value in model.graph.initializers.values() if not value.uses()]:
        if not value.is_graph_output() and not value.is_graph_input():
            ctx.edit.remove_initializer(value)
    called = _called(model)
    for key in [key for key in model.functions if key not in called]:
        del model.functions[key]
        ctx.edit.touch()
    domains = {node.domain for node in _nodes(model)} | {""}
    for domain in [domain for domain in model.opset_imports if domain not in domains]:
        del model.graph.opset_imports[domain]
        ctx.edit.touch()


def _called(model: ir.Model) -> set[ir.OperatorIdentifier]:
    """Identifiers of all operators that the main graph uses, directly or in bodies of functions."""
    called: set[ir.OperatorIdentifier] = set()
    waiting = {node.op_identifier() for node in model.graph.all_nodes()}
    while waiting:
        key = waiting.pop()
        called.add(key)
        if key in model.functions:
            waiting |= {node.op_identifier() for node in model.functions[key].all_nodes()} - called
    return called


def _set_versions(model: ir.Model, ctx: Context) -> None:
    """Lower opset and IR version as far as the operators' definitions and the element types allow."""
    opset, ir_version = _OPSET, _IR
    for dtype in _types(model):
        wanted = _TYPES_FROM.get(dtype, (_OPSET, _IR))
        opset, ir_version = max(opset, wanted[0]), max(ir_version, wanted[1])
    current = model.opset_imports.get("", _OPSET)
    nodes = [*model.graph.all_nodes(), *(node for function in _foreign(model) for node in function.all_nodes())]
    opset = max([opset, *(_needed(node, current) for node in nodes if node.domain == "")])
    if opset > _HIGHEST_OPSET:
        raise PassError(f"the result needs opset {opset}; runtimes are known to read up to {_HIGHEST_OPSET}")
    if _foreign(model):
        opset = max(opset, current)  # bodies import their own operator set; it must be the same
    if opset > _OPSET:
        ir_version = max(ir_version, _IR_FROM_OPSET_21)
    if DOMAIN in model.opset_imports:
        ir_version = max(ir_version, _IR_OF_METADATA)
    if (current, model.ir_version) != (opset, ir_version):
        model.graph.opset_imports[""] = opset
        model.ir_version = ir_version
        ctx.edit.touch()
    for key, function in model.functions.items():
        if key[0] == DOMAIN and function.opset_imports.get("") != opset:
            function.opset_imports[""] = opset
            ctx.edit.touch()


def _foreign(model: ir.Model) -> list[ir.Function]:
    """Functions that are not ours. Bodies of ``ai.qcompiler`` mean the same in every operator set from 18 to 25."""
    return [function for key, function in model.functions.items() if key[0] != DOMAIN]


def _needed(node: ir.Node, current: int) -> int:
    """Lowest opset, from 20 on, in which the operator means what it means in ``current``.

    From 20 to 25 operators changed only by taking more element types, inputs and attributes, or are marked deprecated
    before the change. So where an older definition takes everything this node has, it will do.
    """
    definition = schema(node.op_type, current)
    while definition is not None and definition.since_version > _OPSET:
        older = schema(node.op_type, definition.since_version - 1)
        if older is None or older.deprecated or not _accepts(older, node):
            return int(definition.since_version)
        definition = older
    return _OPSET


def _accepts(definition: onnx.defs.OpSchema, node: ir.Node) -> bool:
    """Whether ``definition`` has the node's attributes, enough inputs and outputs, and its element types."""
    if len(node.inputs) > definition.max_input or len(node.outputs) > definition.max_output:
        return False
    allowed = {item.type_param_str: frozenset(item.allowed_type_strs) for item in definition.type_constraints}
    return set(node.attributes) <= set(definition.attributes) and all(
        _typed_within(value, formals[min(index, len(formals) - 1)], allowed)
        for values, formals in ((node.inputs, definition.inputs), (node.outputs, definition.outputs))
        for index, value in enumerate(values)
    )


def _typed_within(
    value: ir.Value | None, formal: onnx.defs.OpSchema.FormalParameter, allowed: dict[str, frozenset[str]]
) -> bool:
    """Whether the definition allows the element type of ``value`` in that place; unknown types pass."""
    if value is None or not isinstance(value.type, ir.TensorType) or formal.type_str not in allowed:
        return True
    return f"tensor({value.type.dtype.name.lower()})" in allowed[formal.type_str]


def _types(model: ir.Model) -> Iterator[ir.DataType]:
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)):
            if value.dtype is not None:
                yield value.dtype


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()
