"""Find the Q/DQ group around a node: which codes it reads, which codes its results become, what lies between."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.passes.lower.site import Codes, NoIntegerForm, Site, codes_of_quantizer, codes_read, dequantizer
from qcompiler.quant import state
from qcompiler.quant.operators import LINEAR
from qcompiler.target.integer import IntegerArithmetic

__all__ = ["computes_floats", "quantizers", "site_of"]

_FLOATS: Final = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
_CLAMPS: Final = frozenset({"Relu", "Clip", "Min", "Max"})


def computes_floats(node: ir.Node) -> bool:
    """Whether a node gives real numbers at run time (unknown types count)."""
    constant = bool(node.inputs) and all(value is None or is_constant(value) for value in node.inputs)
    return not constant and any(value.dtype is None or value.dtype in _FLOATS for value in node.outputs)


def site_of(node: ir.Node, arithmetic: IntegerArithmetic) -> Site:
    """The Q/DQ group of a node.

    Raises:
        NoIntegerForm: The node was left in float, or reads or gives real numbers.
    """
    decision = state.node_decision(node)
    if decision is not None and not decision.integer:
        raise NoIntegerForm(decision.reason or "it was left in float")
    inputs = tuple(_read(value, index) for index, value in enumerate(node.inputs))
    outputs, absorbed = _written(node)
    return Site(node, inputs, outputs, absorbed, arithmetic)


def quantizers(site: Site) -> list[list[ir.Node]]:
    """Per output of the site: the QuantizeLinear nodes that its integer form replaces."""
    last = site.absorbed[-1].outputs if site.absorbed else site.node.outputs
    return [[use.node for use in value.uses()] for value in last]


def _read(value: ir.Value | None, index: int) -> Codes | None:
    if value is None or is_constant(value) or (value.dtype is not None and value.dtype not in _FLOATS):
        return None
    source = dequantizer(value)
    if source is None:
        raise NoIntegerForm(f"its input {index} ('{value.name}') is float")
    codes = codes_read(value)
    if codes is None and not is_constant(source.inputs[0]):
        raise NoIntegerForm(f"its input {index} ('{value.name}') has no signed 8- or 16-bit codes with one scale")
    return codes


def _written(node: ir.Node) -> tuple[tuple[Codes, ...], tuple[ir.Node, ...]]:
    absorbed: list[ir.Node] = []
    values = list(node.outputs)
    while len(values) == 1 and (follower := _absorbable(values[0], node)) is not None:
        absorbed.append(follower)
        values = list(follower.outputs)
    return tuple(_codes_of(value) for value in values), tuple(absorbed)


def _absorbable(value: ir.Value, node: ir.Node) -> ir.Node | None:
    """The only reader of a value where it is a clamp, or the constant Add behind a matrix product."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.domain:
        return None
    reader, index = uses[0].node, uses[0].idx
    if reader.op_type in ("Min", "Max", "Add"):
        other = reader.inputs[1 - index] if len(reader.inputs) == 2 else None
        pair = dequantizer(other)
        constant = is_constant(other) or (pair is not None and is_constant(pair.inputs[0]))
        return reader if constant and (reader.op_type != "Add" or node.op_type in LINEAR) else None
    return reader if reader.op_type in _CLAMPS and index == 0 else None


def _codes_of(value: ir.Value) -> Codes:
    """The codes that a result becomes.

    Raises:
        NoIntegerForm: A reader wants real numbers, or readers want different codes.
    """
    readers = [use.node for use in value.uses()]
    if value.is_graph_output() or not readers:
        raise NoIntegerForm(f"its result '{value.name}' leaves the graph or is not used")
    floating = next((reader for reader in readers if reader.op_type != "QuantizeLinear"), None)
    if floating is not None:
        raise NoIntegerForm(f"its result is read in float by {floating.name} ({floating.op_type})")
    written = [codes_of_quantizer(reader) for reader in readers]
    first = written[0]
    if first is None or any(codes is None or not codes.same_parameters(first) for codes in written):
        raise NoIntegerForm("its result is quantized in several ways, or not to signed 8 or 16 bits with one scale")
    return first
